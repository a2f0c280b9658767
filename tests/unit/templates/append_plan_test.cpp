// SPDX-License-Identifier: BSD-3-Clause
// Plans of a forward whose new keys go into the cache first.
#include <doctest/doctest.h>

#include "templates/append/layout.h"
#include "templates/forward/planner.h"

#include <algorithm>

using namespace flashplus;

namespace {

constexpr const char *kTargets[] = {"x86-64-v3",   "x86-64-v4",   "sm_80@sm_80",
                                    "sm_80@sm_86", "sm_80@sm_90", "sm_90a"};

KernelSpec forwardSpec(int dqk, int dv, bool append) {
  KernelSpec spec;
  spec.head_dim_qk = dqk;
  spec.head_dim_v = dv;
  spec.bounded_right = true;
  spec.alignment = dqk % 8 || dv % 8 ? 2 : 16;
  spec.append = append;
  return spec;
}

DeviceProfile device(const char *target) {
  DeviceProfile profile = offlineProfile(*Target::parse(target));
  profile.multiprocessors = 132;
  return profile;
}

bool overlap(const WorkspacePart &a, const WorkspacePart &b) {
  return a.bytes && b.bytes && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

} // namespace

TEST_CASE("append: a step before those of the same problem without it, and its kernel is reachable") {
  for (const char *target : kTargets)
    for (auto [dqk, dv] : {std::pair{64, 64}, {128, 128}, {256, 128}, {40, 8}, {33, 33}})
      for (int64_t seqlen_q : {1, 7, 300})
        for (bool rotary : {false, true})
          for (int splits : {1, 3}) {
            const DeviceProfile profile = device(target);
            Bounds bounds{4, seqlen_q, 4096, 4 * seqlen_q, 8, 2, -1, 0};
            const auto plain =
                planForward(forwardSpec(dqk, dv, false), bounds, profile, {.num_splits = splits});
            bounds.max_seqlen_new = seqlen_q;
            bounds.rotates_q = rotary;
            const KernelSpec spec = forwardSpec(dqk, dv, true);
            INFO(target << " " << spec.text());
            const auto plan = planForward(spec, bounds, profile, {.num_splits = splits});
            REQUIRE_MESSAGE(plan, plan.status().message());
            REQUIRE(plan->steps.size() == plain->steps.size() + 1);
            for (size_t i = 0; i < plain->steps.size(); ++i) {
              CHECK(plan->steps[i + 1].spec.text() == plain->steps[i].spec.text());
              CHECK(plan->steps[i + 1].schedule == plain->steps[i].schedule);
              CHECK(plan->steps[i + 1].work_items == plain->steps[i].work_items);
            }
            const PlanStep &step = plan->steps.front();
            CHECK(step.spec.op == Operation::Append);
            CHECK(!step.spec.append);
            const int64_t rows = 2 * 2 * seqlen_q + (rotary ? 8 * seqlen_q : 0);
            CHECK(step.work_items == 4 * ceilDiv(rows, step.schedule.get("rows")));
            if (isGpu(profile.target.isa))
              CHECK(step.launch.threads == step.schedule.get("rows") * gpuAppendLanes(step.spec));
            const auto reachable = reachableKernels(spec, profile);
            for (const PlanStep &s : plan->steps)
              CHECK(std::ranges::count_if(reachable, [&](const PlannedKernel &k) {
                      return k.spec.text() == s.spec.text() && k.schedule == s.schedule;
                    }) == 1);
            CHECK(reachable.size() == reachableKernels(forwardSpec(dqk, dv, false), profile).size() + 1);
          }
}

TEST_CASE("append: lengths, and q where it turns, have room of their own in the workspace") {
  for (int splits : {1, 4})
    for (bool rotary : {false, true}) {
      Bounds bounds{3, 5, 4096, 15, 8, 2, -1, 0};
      bounds.max_seqlen_new = 5;
      bounds.rotates_q = rotary;
      const auto plan =
          planForward(forwardSpec(128, 128, true), bounds, device("sm_80@sm_90"), {.num_splits = splits});
      REQUIRE_MESSAGE(plan, plan.status().message());
      CHECK(plan->parts[kNewLengths].bytes >= 3 * 4);
      CHECK(plan->parts[kRotatedQ].bytes == (rotary ? 15 * 8 * 128 * 2 : 0));
      for (int i = 0; i < kMaxParts; ++i) {
        const WorkspacePart &part = plan->parts[i];
        CHECK(part.offset % 8 == 0);
        CHECK(part.offset + part.bytes <= plan->workspace_bytes);
        for (int j = 0; j < i; ++j)
          CHECK(!overlap(part, plan->parts[j]));
      }
      CHECK(plan->parts[kNewLengths].offset >= kWorkspaceZeroed);
      CHECK(plan->parts[kRotatedQ].offset % 256 == 0);
    }
}

TEST_CASE("append: one item a sequence writes its length even where nothing is new") {
  Bounds bounds{3, 0, 64, 0, 8, 2, -1, 0};
  const auto plan = planForward(forwardSpec(64, 64, true), bounds, device("sm_90a"), {});
  REQUIRE_MESSAGE(plan, plan.status().message());
  CHECK(plan->steps[0].work_items == 3);
  CHECK(plan->steps[1].work_items == 0);
}

TEST_CASE("append: it is no kernel's own, and its knob is checked") {
  const Target target = *Target::parse("sm_80@sm_80");
  auto fails = [&](const KernelSpec &spec, const char *schedule, const char *text) {
    const auto launch = launchSchema(spec, completeSchedule(*Schedule::parse(schedule)), target);
    REQUIRE(!launch);
    CHECK_MESSAGE(launch.status().message().find(text) != std::string::npos, launch.status().message());
  };
  fails(forwardSpec(64, 64, true), "sm80.flash", "append is 1; the append is a step of its own");
  KernelSpec append;
  append.op = Operation::Append;
  append.head_dim_qk = append.head_dim_v = 128;
  append.alignment = 2;
  CHECK(append.text() == "append dtype=bf16 dqk=128 dv=128 align=2");
  fails(append, "gpu.append rows=0", "rows is 0; it must be a multiple of 2 to 64");
  fails(append, "gpu.append rows=7", "rows is 7");
  fails(append, "gpu.append rows=66", "rows is 66");
  CHECK(KernelSpec::parse("forward dtype=bf16 dqk=64 dv=64 append=1")->append);
  CHECK(!KernelSpec::parse("append dtype=bf16 dqk=64 dv=64 append=1").isOk());
}
