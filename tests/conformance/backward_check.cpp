// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/backward_check.h"

#include "tests/soak.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

namespace flashplus::conformance {
namespace {

constexpr size_t kAtOnce = 64; ///< Cases whose memory is held at the same time.

struct Attempt {
  flashplus_status status = FLASHPLUS_INTERNAL;
  PlanPtr plan;
  std::string message;
};

bool plainScore(const Case &c) { return c.score.empty() && c.softcap == 0 && c.alibi == Alibi::None; }

Attempt attempt(const BackwardInstance &instance) {
  Attempt a;
  flashplus_plan *plan = nullptr;
  a.status = flashplus_backward_plan_create(Session::get().context(), &instance.gradientArgs(), &plan);
  a.plan.reset(plan);
  if (a.status != FLASHPLUS_OK)
    a.message = flashplus_last_error();
  return a;
}

PlanPtr accepted(Attempt a, const BackwardInstance &instance) {
  const bool may_refuse = !Session::get().onCpu() && !plainScore(instance.problem());
  if (a.status == FLASHPLUS_UNSUPPORTED && may_refuse) {
    CHECK(a.plan == nullptr);
    Session::get().recordRefused(a.message);
    return nullptr;
  }
  CHECK_MESSAGE(a.plan, instance.backward().text() << ": " << a.message);
  return std::move(a.plan);
}

/// Makes every plan, as many at once as there are processors; compiling is most of the suite's time.
std::vector<PlanPtr> makePlans(const std::vector<std::unique_ptr<BackwardInstance>> &instances) {
  std::vector<Attempt> attempts(instances.size());
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next++) < instances.size();)
      attempts[i] = attempt(*instances[i]);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i)
    threads.emplace_back(work);
  work();
  for (std::thread &t : threads)
    t.join();
  std::vector<PlanPtr> plans;
  for (size_t i = 0; i < instances.size(); ++i)
    plans.push_back(accepted(std::move(attempts[i]), *instances[i]));
  return plans;
}

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Pairs of tiles, over all heads: for each tile of keys the rows that see one of them, in tiles from the
/// first of them or from row 0.
enum class Walk { FromFirst, Aligned };
int64_t pairsOfTiles(const Case &c, Walk walk, int64_t tile_m, int64_t tile_n) {
  int64_t pairs = 0;
  for (int64_t b = 0; b < c.batches(); ++b) {
    const int64_t rows = c.lengthQ(b), keys = c.lengthK(b);
    auto visible = [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
      for (int64_t i = i0; i < std::min(i1, rows); ++i)
        for (int64_t j = j0; j < std::min(j1, keys); ++j)
          if (c.sees(b, i, j))
            return true;
      return false;
    };
    for (int64_t n = 0; n < keys; n += tile_n) {
      int64_t first = 0, last = rows;
      while (first < rows && !visible(first, first + 1, n, n + tile_n))
        ++first;
      while (last > first && !visible(last - 1, last, n, n + tile_n))
        --last;
      const int64_t start = walk == Walk::Aligned ? first / tile_m * tile_m : first;
      pairs += first < last ? ceilDiv(last - start, tile_m) : 0;
    }
  }
  return pairs * c.hq;
}

int64_t expectedTiles(const Case &c, const flashplus_plan &plan) {
  int64_t pairs = 0;
  const auto json = nlohmann::json::parse(flashplus_plan_describe(&plan));
  for (const auto &step : json["steps"]) {
    const std::string spec = step["spec"], schedule = step["schedule"];
    const std::string op = spec.substr(0, spec.find(' '));
    const Walk walk = schedule.starts_with("cpu.") ? Walk::FromFirst : Walk::Aligned;
    for (const char *name : {"backward", "backward_kv"})
      if (op == name)
        pairs += pairsOfTiles(c, walk, numberAfter(schedule, "tile_m"), numberAfter(schedule, "tile_n"));
  }
  return pairs;
}

/// Whether flashplus_backward comes too. An emulated run takes seconds, and one case in eight is enough
/// there.
bool runsDirectly(const BackwardCase &c) { return !Session::get().pairsOnly() || test::inShare(c.text(), 8); }

/// Whether a step adds dq up in memory, in any order.
bool addsUp(const flashplus_plan &plan) {
  return std::string(flashplus_plan_describe(&plan)).find("sm90.backward ") != std::string::npos;
}

BackwardOutputs runBothWays(BackwardInstance &instance, flashplus_plan &plan) {
  const BackwardCase &c = instance.backward();
  const BackwardOutputs planned = runBackwardPlan(instance, plan);
  std::string where;
  CHECK_MESSAGE(instance.gradientsUntouched(planned, where), where << ": " << c.text());
  CHECK_MESSAGE(instance.gradientInputsUnchanged(), "an input was written: " << c.text());
  if (runsDirectly(c))
    CHECK_MESSAGE(planned.same(runBackward(instance), addsUp(plan)), "the second run differs: " << c.text());
  const int64_t expected = expectedTiles(c.forward, plan);
  CHECK_MESSAGE(planned.tiles == expected, "pairs of tiles: " << c.text());
  if (c.delta) {
    const BackwardInstance::Delta delta = instance.unpackDelta(planned);
    int64_t wrong = 0;
    for (size_t i = 0; i < delta.actual.size(); ++i)
      wrong += !(std::fabs(delta.actual[i] - delta.expected[i]) <= delta.allowed[i]);
    CHECK_MESSAGE(wrong == 0, "rows of delta: " << c.text());
  }
  return planned;
}

void judge(const BackwardInstance &instance, const BackwardOutputs &outputs) {
  const BackwardCase &c = instance.backward();
  const reference::BackwardComparison result =
      reference::compareBackward(instance.gradientReference(), instance.unpackGradients(outputs));
  Session::get().record(c.forward.dtype, result, c.text());
  CHECK_MESSAGE(result.good(), result.complaint() << ": " << c.text());
}

} // namespace

std::vector<BackwardCase> backwards(const std::vector<Case> &cases) {
  std::vector<BackwardCase> all;
  for (size_t i = 0; i < cases.size(); ++i)
    all.push_back({.forward = cases[i],
                   .dlse = i % 2 == 1,
                   .delta = i % 3 == 1,
                   .score_grads = !plainScore(cases[i]),
                   .any_order = i % 4 < 2});
  return all;
}

std::vector<BackwardCase> forEveryDtype(const std::vector<BackwardCase> &cases) {
  std::vector<BackwardCase> all;
  for (DType dtype : Session::get().dtypes())
    for (BackwardCase c : cases) {
      c.forward.dtype = dtype;
      all.push_back(std::move(c));
    }
  return all;
}

std::vector<BackwardCase> dtypesInTurn(const std::vector<BackwardCase> &cases) {
  if (test::soak())
    return forEveryDtype(cases);
  const std::vector<DType> dtypes = Session::get().dtypes();
  std::vector<BackwardCase> all = cases;
  for (BackwardCase &c : all)
    c.forward.dtype = dtypes[size_t(c.forward.d / 8 + c.forward.dimV()) % dtypes.size()];
  return all;
}

std::vector<BackwardCase> chosen(std::vector<BackwardCase> cases) {
  std::vector<Row> rows;
  for (const BackwardCase &c : cases) {
    Row &row = rows.emplace_back();
    for (Case::Field &field : c.fields())
      row.push_back(std::move(field.value));
  }
  std::vector<BackwardCase> few;
  for (size_t i : chosenOf(rows))
    few.push_back(std::move(cases[i]));
  return few;
}

PlanPtr makeBackwardPlan(const BackwardInstance &instance) { return accepted(attempt(instance), instance); }

BackwardOutputs runBackwardPlan(BackwardInstance &instance, flashplus_plan &plan) {
  const Session &s = Session::get();
  const DeviceBuffer workspace = freshWorkspace(plan);
  const std::string name = instance.backward().text();
  instance.resetGradients();
  require(flashplus_backward_plan_run(&plan, &instance.gradientArgs(), workspace.data(), workspace.size(),
                                      nullptr),
          name);
  require(flashplus_synchronize(s.context(), s.device(), nullptr), name);
  const std::vector<std::byte> after = workspace.read();
  const auto counters =
      after.begin() + std::ptrdiff_t(std::min<size_t>(after.size(), FLASHPLUS_WORKSPACE_ZEROED));
  CHECK_MESSAGE(std::all_of(after.begin(), counters, [](std::byte b) { return b == std::byte(0); }), name);
  return instance.readGradients();
}

BackwardOutputs runBackward(BackwardInstance &instance, flashplus_context *context) {
  const Session &s = Session::get();
  instance.resetGradients();
  require(flashplus_backward(context ? context : s.context(), &instance.gradientArgs(), nullptr),
          instance.backward().text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), instance.backward().text());
  return instance.readGradients();
}

void checkBackward(const std::vector<BackwardCase> &all) {
  const std::vector<BackwardCase> cases = chosen(all);
  for (size_t first = 0; first < cases.size(); first += kAtOnce) {
    std::vector<std::unique_ptr<BackwardInstance>> instances;
    for (size_t i = first; i < std::min(first + kAtOnce, cases.size()); ++i)
      instances.push_back(std::make_unique<BackwardInstance>(cases[i]));
    const std::vector<PlanPtr> plans = makePlans(instances);
    for (size_t i = 0; i < instances.size(); ++i)
      if (plans[i])
        judge(*instances[i], runBothWays(*instances[i], *plans[i]));
  }
}

std::optional<reference::Gradients> runBackwardCase(const BackwardCase &c) {
  BackwardInstance instance(c);
  const PlanPtr plan = makeBackwardPlan(instance);
  if (!plan)
    return std::nullopt;
  return instance.unpackGradients(runBothWays(instance, *plan));
}

} // namespace flashplus::conformance
