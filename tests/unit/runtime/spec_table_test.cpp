// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/forward_args.h"
#include "runtime/kernels/kernel_table.h"
#include "runtime/plans/spec_table.h"
#include "tests/unit/runtime/problem.h"

#include <doctest/doctest.h>

#include <thread>

using namespace flashplus;

namespace {

PlanKey keyOf(int64_t batch, int64_t keys, int64_t head_dim) {
  test::Problem p(batch, 1, keys, 1, 1, head_dim);
  static ScoreTable scores;
  ForwardProblem problem;
  REQUIRE(checkForwardArgs(&p.args, DataPointers::Required, scores, problem));
  return PlanKey(problem);
}

std::unique_ptr<PlannedSpec> make() {
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = 64;
  return std::make_unique<PlannedSpec>(spec, offlineProfile({Isa::X86_64_v3, 0}), "cpu",
                                       std::vector<TunedSchedule>());
}

} // namespace

TEST_CASE("a spec is found for every length, and the first of two entries stays") {
  SpecTable table;
  CHECK(table.find(keyOf(1, 10, 64)) == nullptr);
  PlannedSpec &first = table.add(keyOf(1, 10, 64), make());
  CHECK(table.find(keyOf(3, 4000, 64)) == &first);
  CHECK(table.find(keyOf(1, 10, 128)) == nullptr);
  CHECK(&table.add(keyOf(2, 20, 64), make()) == &first);
}

TEST_CASE("a kernel is known for its step alone") {
  auto planned = make();
  const Bounds bounds{1, 4096, 4096, 4096, 8, 8, -1, -1};
  auto plan = planned->planner->plan(bounds, {.num_splits = 2});
  REQUIRE(plan);
  REQUIRE(plan->steps.size() == 2);
  const PlanStep &split = plan->steps[0], &combine = plan->steps[1];
  PlanStep whole = split, other = split;
  whole.spec.results = Results::Final;
  other.schedule.knobs.begin()->second += 1;
  auto kernel = std::make_shared<ResidentKernel>(), second = std::make_shared<ResidentKernel>();
  planned->remember(split, kernel);
  planned->remember(split, second);
  CHECK(planned->kernel(split) == kernel);
  CHECK(planned->kernel(whole) == nullptr);
  CHECK(planned->kernel(other) == nullptr);
  CHECK(planned->kernel(combine) == nullptr);
  planned->remember(combine, second);
  CHECK(planned->kernel(combine) == second);
}

TEST_CASE("threads that plan a spec at once share what they find") {
  SpecTable table;
  const PlanKey key = keyOf(1, 10, 64);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        PlannedSpec *planned = table.find(key);
        if (!planned)
          planned = &table.add(key, make());
        const auto plan = planned->planner->plan({1, 64, 64 + i, 64, 1, 1, -1, -1}, {});
        if (!planned->kernel(plan->steps[0]))
          planned->remember(plan->steps[0], std::make_shared<ResidentKernel>());
      }
    });
  threads.clear();
  const auto plan = table.find(key)->planner->plan({1, 64, 64, 64, 1, 1, -1, -1}, {});
  CHECK(table.find(key)->kernel(plan->steps[0]) != nullptr);
}
