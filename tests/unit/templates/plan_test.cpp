// SPDX-License-Identifier: BSD-3-Clause
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "templates/algorithm.h"
#include "templates/forward/sm80_flash/layout.h"
#include "templates/forward/planner.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

#include <algorithm>
#include <set>

using namespace flashplus;

namespace {

KernelSpec forwardSpec(int dqk, int dv, DType dtype = DType::BF16) {
  KernelSpec spec;
  spec.dtype = dtype;
  spec.head_dim_qk = dqk;
  spec.head_dim_v = dv;
  spec.bounded_right = true;
  return spec;
}

DeviceProfile device(const char *target, int multiprocessors) {
  DeviceProfile profile = offlineProfile(*Target::parse(target));
  profile.multiprocessors = multiprocessors;
  return profile;
}

std::string kernelText(const KernelSpec &spec, const Schedule &schedule) {
  return spec.text() + " | " + schedule.text();
}

constexpr const char *kTargets[] = {
    "x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16", "sm_80@sm_80", "sm_80@sm_86", "sm_80@sm_90", "sm_90a"};

void fails(const auto &result, const char *text) {
  REQUIRE(!result);
  CHECK_MESSAGE(result.status().message().find(text) != std::string::npos, result.status().message());
}

} // namespace

TEST_CASE("a warmed spec never compiles: every step of every plan is reachable") {
  for (const char *target : kTargets)
    for (auto [dqk, dv] : {std::pair{64, 64}, {128, 128}, {256, 256}, {192, 128}, {40, 8}}) {
      const KernelSpec spec = forwardSpec(dqk, dv);
      const DeviceProfile profile = device(target, 132);
      std::set<std::string> reachable;
      for (const PlannedKernel &k : reachableKernels(spec, profile))
        reachable.insert(kernelText(k.spec, k.schedule));
      for (int64_t seqlen_q : {1, 7, 64, 65, 100, 128, 1000, 100000})
        for (int64_t seqlen_k : {0, 1, 64, 5000, 131072})
          for (int64_t batch : {1, 3, 200})
            for (int splits : {0, 1, 5})
              for (bool invariant : {false, true}) {
                const Bounds bounds{batch, seqlen_q, seqlen_k, batch * seqlen_q, 8, 2, -1, 0};
                auto plan =
                    planForward(spec, bounds, profile, {.num_splits = splits, .batch_invariant = invariant});
                REQUIRE_MESSAGE(plan, plan.status().message());
                for (const PlanStep &step : plan->steps)
                  CHECK(reachable.count(kernelText(step.spec, step.schedule)));
              }
    }
}

TEST_CASE("pages of eights are copied in boxes, others row by row") {
  KernelSpec spec = forwardSpec(128, 128);
  spec.keys = KeyAddressing::Paged;
  const DeviceProfile hopper = device("sm_90a", 132);
  Bounds bounds{4, 4096, 8192, 4 * 4096, 32, 8, -1, 0};
  std::set<std::string> reachable;
  for (const PlannedKernel &k : reachableKernels(spec, hopper))
    reachable.insert(kernelText(k.spec, k.schedule));
  for (bool invariant : {false, true})
    for (int32_t page : {1, 3, 4, 12, 8, 16, 24, 64, 256}) {
      bounds.key_run = keyRun(page, 8192, /*leftpad=*/false);
      auto plan = planForward(spec, bounds, hopper, {.batch_invariant = invariant});
      REQUIRE_MESSAGE(plan, plan.status().message());
      CHECK(plan->steps[0].schedule.algorithm == (page % 8 ? "sm80.flash" : "sm90.flash"));
      CHECK(reachable.count(kernelText(plan->steps[0].spec, plan->steps[0].schedule)));
    }
  // One page a sequence cuts nothing.
  bounds.key_run = keyRun(8192, 8192, /*leftpad=*/true);
  CHECK(planForward(spec, bounds, hopper, {})->steps[0].schedule.algorithm == "sm90.flash");
  bounds.key_run = keyRun(4096, 8192, /*leftpad=*/true);
  CHECK(planForward(spec, bounds, hopper, {})->steps[0].schedule.algorithm == "sm80.flash");
  const Schedule forced =
      completeSchedule(*Schedule::parse("sm90.flash pingpong=0 q_stages=2 stages=2 tile_m=128 tile_n=128"));
  fails(planForward(spec, bounds, hopper, {.schedule = forced}),
        "copies 8 keys of a page together; pages are of 1");
  const std::vector<TunedSchedule> tuned = {
      {.queries = 4096, .keys = 8192, .schedule = forced, .record = "r"}};
  CHECK(planForward(spec, bounds, hopper, {.tuned = tuned})->steps[0].schedule.algorithm == "sm80.flash");
  bounds.key_run = 64;
  CHECK(planForward(spec, bounds, hopper, {.tuned = tuned})->steps[0].schedule == forced);
}

TEST_CASE("boxes of a tile: inside a page, and as long as both allow") {
  for (int32_t page : {8, 16, 24, 64, 80, 1024})
    for (int32_t tile : {16, 64, 80, 96, 128, 176}) {
      const int32_t rows = boxRows(tile, keyRun(page, 1 << 20, false));
      CHECK(page % rows == 0);
      CHECK(tile % rows == 0);
      CHECK(rows % 8 == 0);
    }
  CHECK(boxRows(128, keyRun(64, 1 << 20, false)) == 64);
  CHECK(boxRows(80, keyRun(1000, 1000, true)) == 80);
  CHECK(keyRun(64, 65, true) == 1);
  CHECK(keyRun(64, 0, true) == kWholeRun);
}

TEST_CASE("one query row against many keys is split, a full grid is not") {
  const KernelSpec spec = forwardSpec(128, 128);
  const DeviceProfile gpu = device("sm_80@sm_90", 132);
  KernelSpec unaligned = spec; // which sm80.decode does not take
  unaligned.alignment = 2;
  auto decode = planForward(unaligned, {1, 1, 131072, 1, 8, 8, -1, 0}, gpu, {});
  REQUIRE(decode);
  CHECK(decode->steps[0].item.num_splits > 8);
  CHECK(decode->steps.size() == 2);
  CHECK(decode->steps[0].spec.isPartial());
  CHECK(decode->steps[1].spec.op == Operation::Combine);
  CHECK(decode->workspace_bytes >= int64_t(decode->steps[0].item.num_splits) * 8 * (128 + 1) * 4);
  CHECK(decode->parts[kPartialLse].offset % 256 == 0);
  auto prefill = planForward(spec, {4, 4096, 4096, 4 * 4096, 32, 8, -1, 0}, gpu, {});
  REQUIRE(prefill);
  CHECK(prefill->steps.size() == 1);
  CHECK(prefill->workspace_bytes == 0);
  // A window leaves few keys: nothing to split.
  KernelSpec local = unaligned;
  local.bounded_left = true;
  auto windowed = planForward(local, {1, 1, 131072, 1, 8, 8, 64, 0}, gpu, {});
  REQUIRE(windowed);
  CHECK(windowed->steps.size() == 1);
}

TEST_CASE("few packed query rows get a kernel that divides and merges the keys itself") {
  for (const char *target : {"sm_80@sm_80", "sm_80@sm_86", "sm_80@sm_90", "sm_90a"}) {
    CAPTURE(target);
    const DeviceProfile gpu = device(target, 132);
    const KernelSpec spec = forwardSpec(128, 128);
    auto planned = [&](const KernelSpec &s, int64_t seqlen_q, int64_t heads_q, int64_t heads_k,
                       const PlanOptions &options = {}) {
      auto plan = planForward(s, {4, seqlen_q, 8192, 4 * seqlen_q, heads_q, heads_k, -1, 0}, gpu, options);
      REQUIRE_MESSAGE(plan, plan.status().message());
      return std::move(*plan);
    };
    auto rows = [](const Plan &plan) { // of the decode kernel; 0: another one
      const PlanStep &step = plan.steps[0];
      return step.schedule.algorithm.ends_with(".decode") ? step.schedule.get("tile_m") : 0;
    };
    for (auto [seqlen_q, heads_q, heads_k, tile_m] :
         {std::tuple{1, 8, 8, 8}, {1, 32, 8, 8}, {2, 32, 8, 8}, {1, 64, 8, 8}, {3, 32, 8, 16}, {1, 16, 1, 16},
          {2, 16, 1, 16}, {5, 64, 8, 0}, {64, 8, 8, 0}})
      CHECK(rows(planned(spec, seqlen_q, heads_q, heads_k)) == tile_m);

    CHECK(rows(planned(forwardSpec(64, 64), 2, 16, 1)) == 32); // a tile of so many has room
    CHECK(planned(spec, 3, 32, 8).steps[0].schedule.algorithm ==
          (gpu.target.isa == Isa::Sm90a ? "sm90.decode" : "sm80.decode"));
    CHECK(rows(planned(forwardSpec(256, 256), 4, 8, 1)) == 8); // four tiles

    const Plan plan = planned(spec, 1, 32, 8);
    const int64_t places = 2 * 132 * 8;
    CHECK(plan.steps.size() == 1);
    CHECK(plan.steps[0].spec.results == Results::Merged);
    CHECK(plan.steps[0].work_items == 132);
    CHECK(plan.zeroed_bytes == 132);
    CHECK(plan.parts[kWorkCounter].bytes == 132);
    CHECK(plan.parts[kPartialO].bytes >= places * 128 * 4);
    CHECK(plan.parts[kPartialLse].offset >= plan.parts[kPartialO].offset + plan.parts[kPartialO].bytes);
    CHECK(plan.workspace_bytes == plan.parts[kPartialLse].offset + places * 8);
    // The counters of a device with more multiprocessors than they have bytes.
    auto large = planForward(spec, {4, 1, 8192, 4, 32, 8, -1, 0}, device(target, 1000), {});
    REQUIRE(large);
    CHECK(large->steps[0].work_items == 255);
    CHECK(large->zeroed_bytes <= kWorkspaceZeroed);

    // Who says how the keys are shared, or that it may not depend on the batch, gets what does as told.
    CHECK(rows(planned(spec, 1, 32, 8, {.num_splits = 1})) == 0);
    CHECK(rows(planned(spec, 1, 32, 8, {.num_splits = 3})) == 0);
    CHECK(rows(planned(spec, 1, 32, 8, {.batch_invariant = true})) == 0);
    PlanOptions forced{.num_splits = 3, .schedule = plan.steps[0].schedule};
    fails(planForward(spec, {4, 1, 8192, 4, 32, 8, -1, 0}, gpu, forced), "num_splits is 3");
    // More tiles than the kernel can number.
    const Bounds vast{1 << 20, 1, int64_t(1) << 30, 1 << 20, 32, 8, -1, 0};
    auto many = planForward(spec, vast, gpu, {});
    CHECK((!many || !many->steps[0].schedule.algorithm.ends_with(".decode")));
    fails(planForward(spec, vast, gpu, {.schedule = plan.steps[0].schedule}), "2^30 tiles");
    KernelSpec unaligned = spec;
    unaligned.alignment = 2;
    CHECK(rows(planned(unaligned, 1, 32, 8)) == 0);
    // One that does not compile: another stands in, with the same rows where there are two algorithms.
    CHECK(rows(planned(spec, 1, 32, 8, {.rejected = {plan.steps[0].schedule}})) ==
          (gpu.target.isa == Isa::Sm90a ? 8 : 16));
    // What was measured for one query row is not taken for more rows than the kernel has.
    const TunedSchedule tuned[] = {{.queries = 1, .keys = 8192, .schedule = plan.steps[0].schedule}};
    CHECK(rows(planned(spec, 2, 32, 8, {.tuned = tuned})) == 8);
    CHECK(rows(planned(spec, 64, 32, 8, {.tuned = tuned})) == 0);
  }
}

TEST_CASE("batch_invariant plans do not depend on the batch") {
  const KernelSpec spec = forwardSpec(64, 64);
  const DeviceProfile gpu = device("sm_80@sm_80", 108);
  std::set<std::string> seen;
  for (int64_t batch : {1, 64})
    for (int64_t seqlen_q : {1, 64, 4096}) {
      auto plan = planForward(spec, {batch, seqlen_q, 65536, batch * seqlen_q, 4, 4, -1, 0}, gpu,
                              {.batch_invariant = true});
      REQUIRE(plan);
      CHECK(plan->steps[0].item.num_splits == 1);
      seen.insert(plan->steps[0].schedule.text());
    }
  CHECK(seen.size() == 1);
}

TEST_CASE("shared memory selects a schedule and never fails, 99 KB parts included") {
  for (int dqk = 8; dqk <= kMaxHeadDim; dqk += 8)
    for (int dv : {8, 64, 128, 256})
      for (const char *target : kTargets) {
        const KernelSpec spec = forwardSpec(dqk, dv);
        const DeviceProfile profile = device(target, 100);
        const auto schedules = feasibleSchedules(spec, profile);
        REQUIRE_MESSAGE(!schedules.empty(), dqk << " " << dv << " " << target);
        for (const Schedule &s : schedules) {
          auto launch = launchSchema(spec, s, profile.target);
          REQUIRE_MESSAGE(launch, launch.status().message());
          CHECK(launch->shared_memory <= profile.shared_memory_per_block);
        }
      }
}

TEST_CASE("row pitches keep ldmatrix free of bank conflicts") {
  for (int d = 8; d <= kMaxHeadDim; d += 8) {
    const auto l =
        Sm80FlashLayout::of(forwardSpec(d, d), *Schedule::parse("sm80.flash tile_m=64 tile_n=64 warps=4"));
    for (int pitch : {l.qPitch(), l.kPitch(), l.vPitch()}) {
      std::set<int> banks;
      for (int row = 0; row < 8; ++row)
        banks.insert(row * pitch / 16 % 8);
      CHECK(banks.size() == 8);
    }
  }
}

TEST_CASE("the space holds feasible schedules only, each once, and every schedule of the tables") {
  for (const char *target : kTargets)
    for (auto [dqk, dv] : {std::pair{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}}) {
      const KernelSpec spec = forwardSpec(dqk, dv);
      const DeviceProfile profile = device(target, 132);
      std::set<std::string> space;
      for (const Schedule &s : scheduleSpace(spec, profile)) {
        auto launch = launchSchema(spec, s, profile.target);
        REQUIRE_MESSAGE(launch, launch.status().message());
        CHECK(launch->shared_memory <= profile.shared_memory_per_block);
        CHECK(completeSchedule(s) == s);
        CHECK(space.insert(s.text()).second);
      }
      for (Schedule s : feasibleSchedules(spec, profile)) {
        if (itemTraits(s).by_lengths) // is beside every row of the table, and not tried
          s.knobs["by_lengths"] = 0;
        CHECK_MESSAGE(space.count(s.text()), s.text() << " on " << target);
      }
    }
}

TEST_CASE("a schedule that names some knobs has the others' standard values") {
  const Schedule given = *Schedule::parse("sm90.flash tile_n=176");
  const Schedule complete = completeSchedule(given);
  CHECK(complete.get("tile_n") == 176);
  CHECK(complete.knobs.size() == kSm90Flash.knobs.size());
  for (const Knob &knob : kSm90Flash.knobs)
    if (knob.name != "tile_n")
      CHECK(complete.get(knob.name) == knob.standard);
  CHECK(completeSchedule(*Schedule::parse("nonsense x=1")).text() == "nonsense x=1");
}

TEST_CASE("a table gives the rows of the smallest class that covers a spec and has a feasible row") {
  const TableRow rows[] = {
      {64, 64, true, 1000, "sm90.flash tile_m=128 tile_n=128"},
      {64, 64, true, kAnyKeys, "sm90.flash tile_m=192 tile_n=128 stages=3"},
      {128, 128, false, kAnyKeys, "sm90.flash tile_m=128 tile_n=80"},
      {128, 128, true, kAnyKeys, "sm90.flash tile_m=128 tile_n=176"},
      {256, 256, true, kAnyKeys, "sm90.flash tile_m=128 tile_n=64"},
  };
  const ScheduleTable table(kSm90Flash, rows);
  const Target target = *Target::parse("sm_90a");
  auto tiles = [&](int dqk, int dv, bool bounded, const char *score = "s", int shared_memory = 227 * 1024) {
    KernelSpec spec = forwardSpec(dqk, dv);
    spec.bounded_right = bounded;
    spec.score = *ScoreExpr::parse(score);
    std::vector<std::pair<int, int64_t>> found;
    for (const Candidate &c : table.candidates(spec, target, shared_memory))
      found.emplace_back(c.schedule.get("tile_n"), c.most_keys);
    return found;
  };
  using Rows = std::vector<std::pair<int, int64_t>>;
  CHECK(tiles(64, 40, true) == Rows{{128, 1000}, {128, kAnyKeys}});
  CHECK(tiles(64, 72, true) == Rows{{176, kAnyKeys}});
  CHECK(tiles(128, 128, false) == Rows{{80, kAnyKeys}});
  CHECK(tiles(192, 192, true) == Rows{{64, kAnyKeys}});
  CHECK(tiles(192, 192, false).empty());
  // 176 keys leave too few registers for a score expression, and too little shared memory of 100 KB: the next
  // class.
  CHECK(tiles(128, 128, true, "tanh(s)") == Rows{{64, kAnyKeys}});
  CHECK(tiles(128, 128, true, "s", 100 * 1024) == Rows{{64, kAnyKeys}});
}

TEST_CASE("a tuned choice of the nearest size is taken before the table's") {
  const KernelSpec spec = forwardSpec(128, 128);
  const DeviceProfile gpu = device("sm_90a", 132);
  auto tuned = [](int64_t size, const char *text) {
    return TunedSchedule{size, size, completeSchedule(*Schedule::parse(text)),
                         "record " + std::to_string(size)};
  };
  const std::vector<TunedSchedule> record = {
      tuned(512, "sm90.flash tile_n=64"), tuned(4096, "sm90.flash tile_n=80"),
      tuned(4096, "sm90.flash tile_n=96"), tuned(8192, "sm90.flash tile_n=1000"), tuned(16384, "nonsense")};
  PlanOptions options;
  options.tuned = record;
  auto source = [&](int64_t q, int64_t k, const PlanOptions &o) {
    auto plan = planForward(spec, {4, q, k, 4 * q, 16, 16, -1, 0}, gpu, o);
    REQUIRE_MESSAGE(plan, plan.status().message());
    return plan->schedule_source + " " + std::to_string(plan->steps[0].schedule.get("tile_n"));
  };
  CHECK(source(512, 512, options) == "record 512 64");
  CHECK(source(1400, 1400, options) == "record 512 64");
  CHECK(source(1500, 1500, options) == "record 4096 80"); // the first of two
  // what is not feasible or not known is passed over
  CHECK(source(100000, 100000, options) == "record 4096 80");
  CHECK(source(64, 512, options).starts_with("default table")); // fewer queries than its tile has rows
  PlanOptions invariant = options;
  invariant.batch_invariant = true;
  CHECK(source(512, 512, invariant).starts_with("default table"));
  PlanOptions rejected = options;
  rejected.rejected = {record[0].schedule};
  CHECK(source(512, 512, rejected) == "record 4096 80");
  PlanOptions forced = options;
  forced.schedule = completeSchedule(*Schedule::parse("sm90.flash tile_n=112"));
  CHECK(source(512, 512, forced) == "forced 112");
}

TEST_CASE("sequences of their own lengths have items by these, and short ones blocks of their own size") {
  const KernelSpec spec = forwardSpec(128, 128);
  const DeviceProfile gpu = device("sm_90a", 132);
  auto chosen = [&](int64_t batch, int64_t longest, int64_t total, const PlanOptions &options = {}) {
    auto plan = planForward(spec, {batch, longest, longest, total, 16, 16, -1, 0}, gpu, options);
    REQUIRE_MESSAGE(plan, plan.status().message());
    const Schedule &s = plan->steps[0].schedule;
    return s.algorithm + " " + std::to_string(s.get("by_lengths")) + " " + std::to_string(s.get("blocks")) +
           " " + std::to_string(s.get("tile_m"));
  };
  CHECK(chosen(16, 1024, 16 * 1024) == "sm90.flash 0 1 128");
  CHECK(chosen(16, 2048, 16 * 1024) == "sm90.flash 1 1 128");
  CHECK(chosen(160, 1300, 160 * 205) == "sm90.flash 1 2 64");
  CHECK(chosen(160, 16384, 160 * 205) == "sm90.flash 1 1 128"); // one of them has nearly all of the work
  CHECK(chosen(16, 256, 16 * 256) == "sm90.flash 0 1 128");
  CHECK(chosen(2, 140, 140) == "sm90.flash 1 1 128"); // few: the bits of a dense batch
  // What was measured with one length is not for many.
  const std::vector<TunedSchedule> record = {
      {1024, 1024, completeSchedule(*Schedule::parse("sm90.flash tile_m=192 tile_n=80")), "record"}};
  CHECK(chosen(16, 1024, 16 * 1024, {.tuned = record}) == "sm90.flash 0 1 192");
  CHECK(chosen(16, 2048, 16 * 1024, {.tuned = record}) == "sm90.flash 1 1 128");
}

TEST_CASE("bad requests name what is wrong") {
  const KernelSpec spec = forwardSpec(64, 64);
  const DeviceProfile gpu = device("sm_80@sm_80", 108);
  fails(launchSchema(spec, *Schedule::parse("sm80.flash tile_m=100 tile_n=64 warps=4"), gpu.target),
        "tile_m is 100; it must be 16 or 32 times warps");
  fails(launchSchema(spec, *Schedule::parse("sm80.flash tile_m=64 tile_n=24 warps=4"), gpu.target),
        "tile_n is 24");
  fails(launchSchema(spec, *Schedule::parse("nonsense"), gpu.target), "there is sm80.flash");
  fails(launchSchema(spec, *Schedule::parse("sm80.flash tile_m=64 tile_n=64 warp=4"), gpu.target),
        "'warp' is not a knob of sm80.flash; there is tile_m, tile_n, warps");
  fails(planForward(forwardSpec(64, 64, DType::F32), {1, 1, 1, 1, 1, 1, -1, 0}, gpu, {}), "fp32");
  fails(planForward(spec, {1, 1, 1, 1, 1, 1, -1, 0}, gpu, {.num_splits = 129}), "num_splits is 129");
  fails(planForward(spec, {1 << 20, 1 << 20, 64, 1, 64, 64, -1, 0}, gpu, {}), "work items");
}

TEST_CASE(
    "few rows on the CPU: K and V are read in place, all key heads of a share of the keys in one work item") {
  KernelSpec spec = forwardSpec(128, 128);
  spec.bounded_right = false;
  for (const char *target : {"x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16"}) {
    struct Shape {
      int64_t queries, keys, heads_q, heads_k, batch = 1;
    };
    auto plan = [&](Shape s, int threads, PlanOptions options = {}) {
      return *planForward(spec,
                          {s.batch, s.queries, s.keys, s.batch * s.queries, s.heads_q, s.heads_k, -1, -1},
                          device(target, threads), options);
    };
    auto schedule = [&](int64_t queries, int64_t heads_k) {
      return plan({queries, 8192, 32, heads_k}, 1).steps[0].schedule.text();
    };
    CHECK(schedule(1, 32) == "cpu.stream heads=8 tile_m=1 tile_n=16");
    CHECK(schedule(1, 8) == "cpu.stream heads=8 tile_m=4 tile_n=16");
    CHECK(schedule(2, 8) == "cpu.stream heads=8 tile_m=8 tile_n=16");
    CHECK(schedule(4, 8) == "cpu.stream heads=8 tile_m=8 tile_n=16"); // two tiles of rows
    CHECK(schedule(5, 8).starts_with("cpu.flash"));
    // Key heads of an item, shares of the keys, and work items: one thread needs no shares, others get four
    // items each, which leave them even.
    auto divides = [&](Shape shape, int threads, PlanOptions options = {}) {
      const Plan p = plan(shape, threads, options);
      return std::vector<int64_t>{p.steps[0].item.key_heads, p.steps[0].item.num_splits,
                                  p.steps[0].work_items};
    };
    using Division = std::vector<int64_t>;
    CHECK(divides({1, 8192, 32, 8}, 1) == Division{8, 1, 1});
    CHECK(divides({1, 8192, 32, 8}, 2) == Division{8, 8, 8});
    CHECK(divides({1, 8192, 32, 8}, 16) == Division{4, 32, 64});
    CHECK(divides({1, 8192, 32, 32}, 16) == Division{8, 16, 64});
    CHECK(divides({1, 8192, 20, 20}, 1) == Division{8, 1, 3});
    CHECK(divides({1, 8192, 4, 1}, 16) == Division{1, 32, 32});
    CHECK(divides({1, 8192, 32, 8, 64}, 16) == Division{8, 1, 64});
    // Too few keys for that: fewer heads an item.
    CHECK(divides({1, 512, 32, 8}, 16) == Division{1, 2, 16});
    CHECK(divides({1, 1000, 32, 8}, 2) == Division{4, 3, 6});
    CHECK(divides({1, 100, 32, 8}, 2) == Division{4, 1, 2});
    CHECK(divides({1, 8192, 32, 8}, 16, {.batch_invariant = true}) == Division{1, 1, 8});
    CHECK(divides({1, 8192, 32, 8, 0}, 16)[2] == 0); // nothing to do
    CHECK(divides({1, 8192, 0, 0}, 16)[2] == 0);
    CHECK(divides({1, 8192, 32, 8}, 2, {.num_splits = 3}) == Division{8, 3, 3});
    const ItemShape item = plan({64, 8192, 32, 8}, 1).steps[0].item;
    CHECK(item.num_splits == 1);
    CHECK(item.key_heads == 1);
  }
  const Target cpu = *Target::parse("x86-64-v3");
  fails(launchSchema(spec, *Schedule::parse("cpu.stream heads=8 tile_m=3 tile_n=64"), cpu),
        "tile_m is 3; it must be 1, 2, 4 or 8");
  fails(launchSchema(spec, *Schedule::parse("cpu.stream heads=8 tile_m=1 tile_n=20"), cpu),
        "tile_n is 20; it must be at least 4");
  fails(launchSchema(spec, *Schedule::parse("cpu.stream heads=0 tile_m=4 tile_n=16"), cpu),
        "heads is 0; it must be 1 to 32");
}

TEST_CASE("sinks are applied once: where a row is finished") {
  KernelSpec spec = forwardSpec(64, 64);
  spec.sinks = Sinks::F32;
  for (const char *target : {"x86-64-v3", "sm_80@sm_80", "sm_90a"})
    for (int splits : {0, 1, 3}) {
      const Bounds bounds{2, splits ? 100 : 1, 4096, splits ? 200 : 2, 8, 2, -1, 0};
      PlanOptions options;
      options.num_splits = splits;
      auto plan = planForward(spec, bounds, device(target, 132), options);
      REQUIRE_MESSAGE(plan, plan.status().message());
      const PlanStep &last = plan->steps.back();
      CAPTURE(last.spec.text());
      CHECK(last.spec.sinks == Sinks::F32);
      for (const PlanStep &step : plan->steps) {
        CHECK(step.spec.validate().isOk());
        CHECK(step.spec.hasSinks() == (&step == &last));
      }
      CHECK(last.launch.params_size == int64_t(paramLayout(last.spec).size));
    }
  spec.results = Results::Partial;
  CHECK(spec.validate().message() ==
        "sinks is fp32, but results is partial; rows get their sink where shares are combined");
}
