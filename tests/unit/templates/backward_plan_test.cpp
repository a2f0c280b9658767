// SPDX-License-Identifier: BSD-3-Clause
// Plans of a GPU's backward: for every head dim, dtype, alignment and chip there is one, warm-up has its
// kernels, and knobs are checked.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "templates/algorithm.h"
#include "templates/backward/planner.h"
#include "templates/backward/sm80_backward_kv/layout.h"
#include "templates/backward/sm80_backward_q/layout.h"
#include "templates/registry.h"

#include <algorithm>

using namespace flashplus;

namespace {

constexpr const char *kTargets[] = {"sm_80@sm_80", "sm_80@sm_86", "sm_80@sm_89", "sm_80@sm_90", "sm_90a"};

KernelSpec backward(int dqk, int dv, DType dtype = DType::BF16) {
  KernelSpec spec;
  spec.op = Operation::Backward;
  spec.dtype = dtype;
  spec.head_dim_qk = dqk;
  spec.head_dim_v = dv;
  spec.alignment = dqk % 8 || dv % 8 ? 2 : 16;
  return spec;
}

void refuses(Operation op, const char *schedule, const char *text, const char *score = "s") {
  KernelSpec spec = backward(64, 64);
  spec.op = op;
  spec.score = *ScoreExpr::parse(score);
  const auto launch =
      launchSchema(spec, completeSchedule(*Schedule::parse(schedule)), *Target::parse("sm_80@sm_86"));
  INFO(schedule);
  REQUIRE(!launch);
  CHECK(launch.status().code() == StatusCode::Unsupported);
  CHECK_MESSAGE(launch.status().message().find(text) != std::string::npos, launch.status().message());
}

} // namespace

TEST_CASE("every head dim has a plan of three steps on every chip, and warm-up compiles its kernels and no "
          "others") {
  for (const char *name : kTargets)
    for (int d = 1; d <= kMaxHeadDim; d += d < 16 || d > 248 ? 1 : 7)
      for (int dv : {d, kMaxHeadDim, 8})
        for (bool bounded : {false, true}) {
          KernelSpec spec = backward(d, dv, d % 2 ? DType::F16 : DType::BF16);
          spec.bounded_left = spec.bounded_right = bounded;
          INFO(name << " " << spec.text());
          const DeviceProfile device = offlineProfile(*Target::parse(name));
          const Bounds bounds{3, 200, 300, 600, 6, 2, -1, -1};
          const auto plan = planBackward(spec, bounds, device, {});
          REQUIRE_MESSAGE(plan, plan.status().message());
          REQUIRE(plan->steps.size() == 3);
          CHECK(plan->steps[1].spec.op == Operation::BackwardKV);
          CHECK(plan->steps[2].spec.op == Operation::BackwardQ);
          CHECK(plan->steps[1].work_items == 3 * 2 * ceilDiv(300, plan->steps[1].item.rows));
          CHECK(plan->steps[2].work_items == 3 * 6 * ceilDiv(200, plan->steps[2].item.rows));
          const auto reachable = reachableBackwardKernels(spec, device);
          CHECK(reachable.size() == 3);
          for (const PlanStep &step : plan->steps) {
            CHECK(step.launch.shared_memory <= device.shared_memory_per_block);
            CHECK(std::ranges::count_if(reachable, [&](const PlannedKernel &k) {
                    return k.spec == step.spec && k.schedule == step.schedule;
                  }) == 1);
          }
        }
}

TEST_CASE("every knob is checked") {
  const Operation kv = Operation::BackwardKV, q = Operation::BackwardQ;
  refuses(kv, "sm80.backward_kv parts=3", "parts is 3; it must be 1 or 2");
  refuses(kv, "sm80.backward_kv parts=2 warps=5", "warps is 5");
  refuses(kv, "sm80.backward_kv warps=9", "warps is 9");
  refuses(kv, "sm80.backward_kv warps=0", "warps is 0");
  refuses(kv, "sm80.backward_kv tile_n=72", "tile_n is 72; it must be 16 or 32 times warps / parts");
  refuses(kv, "sm80.backward_kv tile_n=256", "tile_n is 256");
  refuses(kv, "sm80.backward_kv tile_m=24", "tile_m is 24");
  refuses(kv, "sm80.backward_kv tile_m=16 parts=2 tile_n=32", "tile_m is 16");
  refuses(kv, "sm80.backward_kv stages=3", "stages is 3; it must be 1 or 2");
  refuses(kv, "sm80.backward_kv tile_m=128 tile_n=128", "registers a thread");
  refuses(kv, "sm80.backward_kv stages=2 tile_m=128 tile_n=128 warps=8", "bytes of shared memory");
  refuses(kv, "sm80.backward_kv tile_k=1", "'tile_k' is not a knob");
  refuses(q, "sm80.backward_q warps=9", "warps is 9; it must be 1 to 8");
  refuses(q, "sm80.backward_q tile_m=72", "tile_m is 72; it must be 16 or 32 times warps");
  refuses(q, "sm80.backward_q tile_n=40", "tile_n is 40");
  refuses(q, "sm80.backward_q stages=0", "stages is 0; it must be 1 or 2");
  refuses(q, "sm80.backward_q tile_m=128 tile_n=128", "registers a thread");
  refuses(q, "sm80.backward_q stages=2 tile_m=128 tile_n=128 warps=8", "bytes of shared memory");
}

TEST_CASE("every score has a plan, with room for its slopes and addresses") {
  for (const char *name : kTargets)
    for (int d : {33, 64, 72, 96, 100, 128, 192, 256})
      for (const char *score : {"20 * tanh(s / 20)", "s - t[h] * abs(q - k)", "s + t[b, h, q, k]",
                                "s * t[h, k] + exp(s) * u[q]"}) {
        KernelSpec spec = backward(d, d);
        spec.score = *ScoreExpr::parse(score);
        INFO(name << " " << spec.text());
        const DeviceProfile device = offlineProfile(*Target::parse(name));
        const auto plan = planBackward(spec, {3, 200, 300, 600, 6, 2, -1, -1}, device, {});
        REQUIRE_MESSAGE(plan, plan.status().message());
        CHECK(plan->steps.size() == 3);
        CHECK(reachableBackwardKernels(spec, device).size() == 3);
      }
  // What is without slopes and loads has all registers.
  const Operation kv = Operation::BackwardKV;
  auto registers = [&](const char *score) {
    KernelSpec spec = backward(128, 128);
    spec.op = kv;
    return Sm80BackwardKVLayout::of(spec, completeSchedule(*Schedule::parse("sm80.backward_kv")))
        .registers(*ScoreExpr::parse(score));
  };
  CHECK(registers("s") == 128 + 64);
  CHECK(registers("s - t[h] * abs(q - k)") == registers("s"));
  CHECK(registers("s + t[h, k]") == registers("s") + 16);
  CHECK(registers("20 * tanh(s / 20)") == registers("s") + 32);
  CHECK(registers("s * t[h, k]") == registers("s") + 48);
  refuses(kv, "sm80.backward_kv tile_m=128 warps=8 tile_n=128", "registers a thread", "20 * tanh(s / 20)");
}
