// SPDX-License-Identifier: BSD-3-Clause
// Plans of a backward. On a GPU: for every head dim, dtype, alignment and chip there is one, warm-up has its
// kernels, and knobs are checked. On a CPU: shares of the keys by the problem alone, and room for their parts
// of dq.
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

void refuses(KernelSpec spec, Operation op, const char *schedule, const char *text, const char *target) {
  spec.op = op;
  const auto launch =
      launchSchema(spec, completeSchedule(*Schedule::parse(schedule)), *Target::parse(target));
  INFO(schedule);
  REQUIRE(!launch);
  CHECK(launch.status().code() == StatusCode::Unsupported);
  CHECK_MESSAGE(launch.status().message().find(text) != std::string::npos, launch.status().message());
}

void refuses(Operation op, const char *schedule, const char *text, const char *score = "s") {
  KernelSpec spec = backward(64, 64);
  spec.score = *ScoreExpr::parse(score);
  refuses(spec, op, schedule, text, "sm_80@sm_86");
}

bool onHopper(const Schedule &schedule) { return schedule.algorithm.starts_with("sm90."); }

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
          // The kernels of sm_80 stand in for those of sm_90a.
          const auto reachable = reachableBackwardKernels(spec, device);
          const auto hopper =
              std::ranges::count_if(reachable, [](const PlannedKernel &k) { return onHopper(k.schedule); });
          // And one that adds dq up has a sum behind it.
          const auto adding = std::ranges::count_if(
              reachable, [](const PlannedKernel &k) { return k.spec.op == Operation::Backward; });
          CHECK(reachable.size() == size_t(3 + hopper + adding));
          CHECK(onHopper(plan->steps[1].schedule) + onHopper(plan->steps[2].schedule) == hopper - adding);
          const bool aligned = spec.alignment == 16;
          if (device.target.isa != Isa::Sm90a || !aligned)
            CHECK(hopper == 0);
          else
            CHECK(hopper == 2 + adding);
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

TEST_CASE("every knob of sm_90a's kernels is checked, and what they do not take") {
  auto refusesOn = [](KernelSpec spec, Operation op, const char *schedule, const char *text) {
    refuses(spec, op, schedule, text, "sm_90a");
  };
  const Operation kv = Operation::BackwardKV, q = Operation::BackwardQ;
  const KernelSpec d64 = backward(64, 64), d128 = backward(128, 128), d256 = backward(256, 256);
  refusesOn(d64, kv, "sm90.backward_kv tile_n=96", "tile_n is 96; it must be 64, 128 or 192");
  refusesOn(d64, kv, "sm90.backward_kv tile_m=40", "tile_m is 40; it must be a multiple of 16 up to 128");
  refusesOn(d64, kv, "sm90.backward_kv stages=5", "stages is 5; it must be 1 to 4");
  refusesOn(d64, kv, "sm90.backward_kv kv_stages=0", "kv_stages is 0; it must be 1 or 2");
  refusesOn(d64, kv, "sm90.backward_kv tile_n=64 pingpong=1",
            "pingpong is 1; it must be 0 with one warpgroup");
  refusesOn(d64, kv, "sm90.backward_kv roles=2", "roles is 2; it must be 1, or 2 with tile_n = 64");
  refusesOn(d128, kv, "sm90.backward_kv tile_m=128", "registers a thread");
  refusesOn(d256, kv, "sm90.backward_kv tile_m=16", "registers a thread");
  refusesOn(d128, kv, "sm90.backward_kv stages=4 kv_stages=2 tile_m=64", "bytes of shared memory");
  refusesOn(d64, q, "sm90.backward_q tile_m=96", "tile_m is 96; it must be 64, 128 or 192");
  refusesOn(d64, q, "sm90.backward_q tile_n=136", "tile_n is 136; it must be a multiple of 16 up to 128");
  refusesOn(d64, q, "sm90.backward_q stages=0", "stages is 0; it must be 1 to 4");
  refusesOn(d64, q, "sm90.backward_q q_stages=3", "q_stages is 3; it must be 1 or 2");
  refusesOn(d64, q, "sm90.backward_q tile_m=64 pingpong=1", "pingpong is 1; it must be 0 with tile_m = 64");
  refusesOn(d256, q, "sm90.backward_q tile_n=96", "registers a thread");
  refusesOn(d256, q, "sm90.backward_q tile_n=64", "bytes of shared memory");
  for (const char *schedule : {"sm90.backward_kv", "sm90.backward_q"}) {
    const Operation op = std::string_view(schedule).ends_with("kv") ? kv : q;
    refusesOn(backward(33, 33), op, schedule, "which needs rows aligned to 16 bytes");
    refuses(d64, op, schedule, "is not an algorithm for this operation", "sm_80@sm_90");
  }
}

TEST_CASE("blocks of a causal backward on sm_90a take their items from a counter, where there are more") {
  KernelSpec spec = backward(64, 64);
  DeviceProfile device = offlineProfile(*Target::parse("sm_90a"));
  device.multiprocessors = 4;
  for (bool causal : {false, true})
    for (int64_t batch : {1, 8}) {
      spec.bounded_right = causal;
      const auto plan =
          planBackward(spec, {batch, 128, 128, batch * 128, 2, 2, -1, causal ? 0 : -1}, device, {});
      REQUIRE_MESSAGE(plan, plan.status().message());
      const bool counts = causal && batch == 8;
      CHECK(plan->zeroed_bytes == (counts ? 8 : 0));
      CHECK(plan->parts[kBackwardCounter].bytes == plan->zeroed_bytes);
    }
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
        CHECK(reachableBackwardKernels(spec, device).size() >= 3);
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

TEST_CASE("a forced schedule is of a kernel that the plan has, or refused; what has no plan has nothing to "
          "warm up") {
  const KernelSpec spec = backward(64, 64);
  const Bounds bounds{3, 200, 300, 600, 6, 2, -1, -1};
  for (const auto &[target, known] :
       {std::pair<const char *, std::string>{"sm_80", "sm80.backward_kv, sm80.backward_q"},
        {"x86-64-v3", "cpu.backward"}}) {
    const DeviceProfile device = offlineProfile(*Target::parse(target));
    for (const char *wrong : {"cpu.flash", "nonsense", "cpu.backward_delta", "gpu.backward_delta"}) {
      INFO(target << " " << wrong);
      PlanOptions options;
      options.schedule = completeSchedule(*Schedule::parse(wrong));
      const auto plan = planBackward(spec, bounds, device, options);
      REQUIRE(!plan);
      CHECK(plan.status().code() == StatusCode::Unsupported);
      CHECK_MESSAGE(plan.status().message().ends_with("there is " + known), plan.status().message());
    }
  }
  PlanOptions options;
  options.schedule = completeSchedule(*Schedule::parse("sm80.backward_q"));
  CHECK(planBackward(spec, bounds, offlineProfile(*Target::parse("sm_80")), options));

  for (const char *target : {"sm_80", "sm_90a", "x86-64-v3"})
    for (DType dtype : {DType::BF16, DType::F32})
      for (const char *score : {"s", "20 * tanh(s / 20)"}) {
        KernelSpec other = backward(64, 64, dtype);
        other.score = *ScoreExpr::parse(score);
        const DeviceProfile device = offlineProfile(*Target::parse(target));
        INFO(target << " " << other.text());
        CHECK(reachableBackwardKernels(other, device).empty() == !planBackward(other, bounds, device, {}));
      }
}

namespace {

constexpr const char *kCpus[] = {"x86-64-v3", "x86-64-v4", "x86-64-v4+avx512bf16"};

Plan cpuPlan(const char *target, const KernelSpec &spec, const Bounds &bounds, int workers = 4) {
  DeviceProfile device = offlineProfile(*Target::parse(target));
  device.multiprocessors = workers;
  auto plan = planBackward(spec, bounds, device, {});
  REQUIRE_MESSAGE(plan, plan.status().message());
  return std::move(*plan);
}

} // namespace

TEST_CASE("on a CPU shares follow from the problem, not from the workers") {
  for (const char *target : kCpus)
    for (int64_t batch : {1, 3, 40})
      for (int64_t keys : {0, 1, 96, 97, 300, 5000}) {
        const Bounds bounds{batch, 200, keys, batch * 200, 8, 2, -1, -1};
        const Plan one = cpuPlan(target, backward(64, 64), bounds, 1);
        const Plan many = cpuPlan(target, backward(64, 64), bounds, 192);
        CHECK(one.steps.size() == many.steps.size());
        CHECK(one.steps[1].item.num_splits == many.steps[1].item.num_splits);
        CHECK(one.workspace_bytes == many.workspace_bytes);
        const int shares = one.steps[1].item.num_splits;
        CHECK(shares >= 1);
        CHECK(shares <= std::max<int64_t>(1, ceilDiv(keys, 96))); // none without a key
        CHECK(one.steps[1].work_items == batch * 2 * shares);
        if (batch * 2 >= 32)
          CHECK(shares == 1);
      }
}

TEST_CASE("on a CPU a plan has three steps with several shares, two with one") {
  const Bounds few{1, 200, 960, 200, 4, 1, -1, -1}, many{40, 200, 960, 8000, 4, 1, -1, -1};
  const Plan shared = cpuPlan("x86-64-v3", backward(64, 64), few),
             whole = cpuPlan("x86-64-v3", backward(64, 64), many);
  REQUIRE(shared.steps.size() == 3);
  CHECK(shared.steps[0].spec.op == Operation::BackwardDelta);
  CHECK(shared.steps[1].spec.op == Operation::Backward);
  CHECK(shared.steps[1].spec.isPartial());
  CHECK(shared.steps[1].item.num_splits == 10);
  CHECK(shared.steps[2].spec.op == Operation::BackwardSum);
  CHECK(shared.steps[1].item.row_scratch == 0);
  REQUIRE(whole.steps.size() == 2);
  CHECK(!whole.steps[1].spec.isPartial());
}

TEST_CASE("on a CPU dq of one share is in the workers' scratch, whole vectors of every head of the group") {
  const Bounds bounds{40, 200, 960, 8000, 6, 2, -1, -1};
  for (auto [target, lanes] : {std::pair{"x86-64-v3", 8}, {"x86-64-v4", 16}})
    for (int d : {1, 40, 64, 100}) {
      const Plan plan = cpuPlan(target, backward(d, 64), bounds);
      CHECK(plan.parts[kDQParts].bytes == 0);
      CHECK(plan.workspace_bytes <= kWorkspaceZeroed + 2 * (8000 * 6 * 4 + 256)); // of rows' values alone
      const ItemShape &item = plan.steps[1].item;
      CHECK(item.row_scratch == 3 * roundUp(d, lanes) * 4);
      CHECK(geometryOf(item, bounds).scratch == 200 * item.row_scratch);
      CHECK(geometryOf(plan.steps[0].item, bounds).scratch == 0);
    }
}

TEST_CASE("the parts of a workspace hold the rows' values and every share of dq, and none overlap") {
  for (const char *target : {"x86-64-v3", "x86-64-v4", "sm_80@sm_80", "sm_90a"})
    for (int64_t batch : {1, 3, 64})
      for (int64_t rows : {0, 1, 200}) {
        const int d = 40, heads = 6;
        const Bounds bounds{batch, rows, 1000, batch * rows, heads, 2, -1, -1};
        const Plan plan = cpuPlan(target, backward(d, 24), bounds);
        CHECK(plan.parts[kRowLse].bytes >= batch * rows * heads * 4);
        CHECK(plan.parts[kRowDelta].bytes >= batch * rows * heads * 4);
        if (plan.steps[1].spec.op == Operation::Backward && plan.steps[1].spec.isPartial())
          CHECK(plan.parts[kDQParts].bytes >= batch * rows * heads * d * 4 * plan.steps[1].item.num_splits);
        int64_t end = kWorkspaceZeroed;
        for (BackwardPart part : {kRowLse, kRowDelta, kDQParts}) {
          if (plan.parts[part].bytes == 0)
            continue;
          CHECK(plan.parts[part].offset >= end);
          CHECK(plan.parts[part].offset % 256 == 0);
          end = plan.parts[part].offset + plan.parts[part].bytes;
        }
        CHECK(plan.workspace_bytes >= end);
      }
}

TEST_CASE("parts of dq stay small: a long problem has fewer shares") {
  const int64_t rows = int64_t(1) << 20; // dq in fp32 is 256 MiB: one part is all there may be
  const Plan plan = cpuPlan("x86-64-v3", backward(64, 64), {1, rows, rows, rows, 1, 1, -1, -1});
  CHECK(plan.steps[1].item.num_splits == 1);
  CHECK(geometryOf(plan.steps[1].item, {1, rows, rows, rows, 1, 1, -1, -1}).scratch == rows * 64 * 4);
}

TEST_CASE("on sm_90a one kernel adds dq up where that is allowed, and the pair stays for what it has not") {
  const Bounds bounds{3, 1000, 1000, 3000, 8, 2, -1, -1};
  auto planned = [&](const KernelSpec &spec, bool any_order) {
    PlanOptions options;
    options.any_order = any_order;
    auto plan = planBackward(spec, bounds, offlineProfile(*Target::parse("sm_90a")), options);
    REQUIRE(plan);
    return *plan;
  };
  const Plan adds = planned(backward(64, 64), true);
  REQUIRE(adds.steps.size() == 3);
  CHECK(adds.steps[1].schedule.algorithm == "sm90.backward");
  CHECK(adds.steps[1].item.num_splits == 1);
  CHECK(adds.steps[2].schedule.algorithm == "gpu.backward_sum");
  CHECK(adds.parts[kDQParts].bytes >= (3000 + 8 * 3) / 8 * 8 * 8 * 64 * 4);
  KernelSpec window = backward(64, 64), scored = backward(128, 128), dropped = backward(64, 64);
  window.bounded_left = dropped.dropout = true;
  scored.score = *ScoreExpr::parse("20 * tanh(s / 20)");
  for (const KernelSpec &spec :
       {window, scored, dropped, backward(40, 40), backward(96, 96), backward(256, 256)})
    CHECK_MESSAGE(planned(spec, true).steps[1].spec.op == Operation::BackwardKV, spec.text());
  CHECK(planned(backward(64, 64), false).steps[1].spec.op == Operation::BackwardKV);
  const auto reachable = reachableBackwardKernels(backward(64, 64), offlineProfile(*Target::parse("sm_90a")));
  for (bool any_order : {false, true})
    for (const PlanStep &step : planned(backward(64, 64), any_order).steps)
      CHECK_MESSAGE(std::ranges::count_if(reachable,
                                          [&](const PlannedKernel &k) {
                                            return k.spec == step.spec && k.schedule == step.schedule;
                                          }) == 1,
                    step.spec.text());
}

TEST_CASE("a schedule that adds dq up in any order wants that allowed") {
  auto forced = [](bool any_order) {
    PlanOptions options;
    options.any_order = any_order;
    options.schedule = completeSchedule(*Schedule::parse("sm90.backward tile_m=128"));
    return planBackward(backward(64, 64), {1, 100, 100, 100, 2, 1, -1, -1},
                        offlineProfile(*Target::parse("sm_90a")), options);
  };
  CHECK(forced(true));
  const auto refused = forced(false);
  REQUIRE(!refused);
  CHECK(refused.status().message().find("any_order is 0; it must be 1") != std::string::npos);
}

TEST_CASE("on a CPU warm-up has every kernel of every plan") {
  for (const char *target : kCpus)
    for (auto [dqk, dv] : {std::pair{64, 64}, {40, 8}, {256, 256}, {59, 59}})
      for (const char *score : {"s", "20 * tanh(s / 20)"}) {
        KernelSpec spec = backward(dqk, dv);
        spec.score = *ScoreExpr::parse(score);
        const auto reachable = reachableBackwardKernels(spec, offlineProfile(*Target::parse(target)));
        for (int64_t batch : {1, 40})
          for (int64_t keys : {0, 1, 5000})
            for (const PlanStep &step :
                 cpuPlan(target, spec, {batch, 100, keys, batch * 100, 4, 2, -1, -1}).steps)
              CHECK_MESSAGE(std::ranges::count_if(reachable,
                                                  [&](const PlannedKernel &k) {
                                                    return k.spec == step.spec && k.schedule == step.schedule;
                                                  }) == 1,
                            step.spec.text());
      }
}

TEST_CASE("a forced schedule is one of a step that has a choice") {
  auto forced = [](const char *target, const char *schedule) {
    return planBackward(backward(64, 64), {1, 100, 100, 100, 2, 1, -1, -1},
                        offlineProfile(*Target::parse(target)),
                        {.schedule = completeSchedule(*Schedule::parse(schedule))});
  };
  CHECK(forced("x86-64-v3", "cpu.backward tile_m=24"));
  CHECK(forced("sm_80@sm_80", "sm80.backward_kv stages=1"));
  CHECK(forced("sm_80@sm_80", "sm80.backward_q stages=1"));
  for (auto [target, schedule] : {std::pair{"x86-64-v3", "sm80.backward_kv"},
                                  {"x86-64-v3", "cpu.flash"},
                                  {"x86-64-v3", "no.such"},
                                  {"sm_80@sm_80", "cpu.backward"},
                                  {"sm_80@sm_80", "sm80.flash"},
                                  {"sm_80@sm_80", "no.such"}}) {
    const auto plan = forced(target, schedule);
    INFO(target << " " << schedule);
    REQUIRE(!plan);
    CHECK(plan.status().message().find("is not an algorithm for a backward") != std::string::npos);
  }
  const auto splits = planBackward(backward(64, 64), {1, 100, 100, 100, 2, 1, -1, -1},
                                   offlineProfile(*Target::parse("x86-64-v3")), {.num_splits = 2});
  REQUIRE(!splits);
  CHECK(splits.status().message().find("num_splits is 2") != std::string::npos);
}

TEST_CASE("gradients of a score's inputs are one more step, and the other kernels what they are without") {
  for (const char *name : {"x86-64-v3", "sm_80@sm_80", "sm_90a"}) {
    const DeviceProfile device = offlineProfile(*Target::parse(name));
    const Bounds bounds{3, 200, 300, 600, 6, 2, -1, -1};
    KernelSpec plain = backward(64, 64), wanted = plain;
    plain.score = wanted.score = *ScoreExpr::parse("p * s + t[h]");
    wanted.score_grads = 1 | 1 << kMaxScoreScalars;
    const auto without = planBackward(plain, bounds, device, {}),
               with = planBackward(wanted, bounds, device, {});
    REQUIRE(without);
    REQUIRE_MESSAGE(with, with.status().message());
    REQUIRE(with->steps.size() == without->steps.size() + 1);
    CHECK(with->steps.size() <= kMaxSteps);
    for (size_t i = 0; i < without->steps.size(); ++i)
      CHECK(with->steps[i].spec.text() == without->steps[i].spec.text());
    CHECK(with->steps.back().spec.op == Operation::BackwardScore);
    CHECK(with->steps.back().spec.score_grads == wanted.score_grads);
    CHECK(with->steps.back().launch.params_size > with->steps.front().launch.params_size);
    // Warm-up has all of them.
    const auto kernels = reachableKernels(wanted, device);
    for (const PlanStep &step : with->steps)
      CHECK(std::ranges::any_of(kernels, [&](const PlannedKernel &k) {
        return k.spec.text() == step.spec.text() && k.schedule == step.schedule;
      }));
    CHECK(kernels.size() == reachableKernels(plain, device).size() + 1);
  }
}

TEST_CASE("a tuning record chooses the schedule of the step that it is of, unless it is forced") {
  const KernelSpec spec = backward(128, 128);
  const DeviceProfile device = offlineProfile(*Target::parse("sm_80@sm_90"));
  const Bounds bounds{3, 200, 300, 600, 6, 2, -1, -1};
  const auto today = planBackward(spec, bounds, device, {});
  REQUIRE(today);
  CHECK(today->schedule_source == "default table");
  auto another = [&](size_t step) {
    for (Schedule &s : scheduleSpace(today->steps[step].spec, device))
      if (s != today->steps[step].schedule)
        return s;
    FAIL("there is only one schedule");
    return Schedule();
  };
  const std::vector<TunedSchedule> tuned = {{200, 300, another(2), "q.json"},
                                            {200, 9000, another(1), "far.json"}};
  PlanOptions options{.tuned = tuned};
  auto plan = planBackward(spec, bounds, device, options);
  REQUIRE_MESSAGE(plan, plan.status().message());
  CHECK(plan->steps[1].schedule == tuned[1].schedule); // the nearest, however far
  CHECK(plan->steps[2].schedule == tuned[0].schedule);
  CHECK(plan->schedule_source == "q.json");
  options.schedule = today->steps[1].schedule;
  plan = planBackward(spec, bounds, device, options);
  REQUIRE(plan);
  CHECK(plan->steps[1].schedule == today->steps[1].schedule);
  CHECK(plan->steps[2].schedule == tuned[0].schedule);
  CHECK(plan->schedule_source == "forced");
  options.schedule.reset();
  options.rejected = {tuned[0].schedule}; // it did not compile
  plan = planBackward(spec, bounds, device, options);
  REQUIRE(plan);
  CHECK(plan->steps[2].schedule == today->steps[2].schedule);
}

TEST_CASE("a record of a kernel that sums in any order is for those alone who allow that") {
  const KernelSpec spec = backward(64, 64);
  const DeviceProfile device = offlineProfile(*Target::parse("sm_90a"));
  const Bounds bounds{3, 200, 300, 600, 6, 2, -1, -1};
  const auto adding = planBackward(spec, bounds, device, {.any_order = true});
  REQUIRE(adding);
  REQUIRE(itemTraits(adding->steps[1].schedule).adds_dq);
  Schedule other;
  for (Schedule &s : scheduleSpace(adding->steps[1].spec, device))
    if (s != adding->steps[1].schedule)
      other = s;
  REQUIRE(!other.algorithm.empty());
  const std::vector<TunedSchedule> tuned = {{200, 300, other, "adds.json"}};
  const auto plan = planBackward(spec, bounds, device, {.any_order = true, .tuned = tuned});
  REQUIRE(plan);
  CHECK(plan->steps[1].schedule == other);
  CHECK(plan->schedule_source == "adds.json");
  const auto ordered = planBackward(spec, bounds, device, {.tuned = tuned});
  REQUIRE(ordered);
  CHECK(ordered->steps.size() == 3);
  CHECK(!itemTraits(ordered->steps[1].schedule).adds_dq);
  CHECK(ordered->schedule_source == "default table");
}
