// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/check.h"

#include "spec/kernel_spec.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <numeric>
#include <sstream>
#include <thread>
#include <utility>

namespace flashplus::conformance {
namespace {

constexpr size_t kAtOnce = 64; ///< Cases whose memory is held at the same time.

/// Makes every plan, as many at once as there are processors; compiling is most of the suite's time.
std::vector<PlanPtr> makePlans(const std::vector<std::unique_ptr<Instance>> &instances) {
  std::vector<PlanPtr> plans(instances.size());
  std::vector<std::string> errors(instances.size());
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next++) < instances.size();) {
      flashplus_plan *plan = nullptr;
      if (flashplus_plan_create(Session::get().context(), &instances[i]->args(), &plan) != FLASHPLUS_OK)
        errors[i] = flashplus_last_error();
      plans[i].reset(plan);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i)
    threads.emplace_back(work);
  work();
  for (std::thread &t : threads)
    t.join();
  for (size_t i = 0; i < instances.size(); ++i)
    CHECK_MESSAGE(plans[i], instances[i]->problem().text() << ": " << errors[i]);
  return plans;
}

/// Runs by plan and by flashplus_forward and checks everything but the values.
Outputs runBothWays(Instance &instance, flashplus_plan &plan) {
  const Case &c = instance.problem();
  const Outputs planned = runPlan(instance, plan), direct = runForward(instance);
  CHECK_MESSAGE(planned == direct, "the second run differs: " << c.text());
  std::string where;
  CHECK_MESSAGE(instance.untouched(planned.o, planned.lse, where), where << ": " << c.text());
  CHECK_MESSAGE(instance.inputsUnchanged(), "an input was written: " << c.text());
  const PlanInfo info = inspect(plan);
  const int64_t expected = visibleTiles(c, info);
  CHECK_MESSAGE(planned.tiles == expected,
                "tiles visited, of " << info.tile_m << " x " << info.tile_n << ": " << c.text());
  return planned;
}

void judge(const Instance &instance, const Outputs &outputs) {
  const Case &c = instance.problem();
  const reference::Comparison result =
      reference::compare(instance.reference(), instance.unpack(outputs.o, outputs.lse));
  Session::get().record(c.dtype, result, c.text());
  CHECK_MESSAGE(result.error <= result.bound,
                "o, worst at row " << result.worst_row << " head " << result.worst_head << ": " << c.text());
  CHECK_MESSAGE(result.lse_error <= result.lse_bound, "lse: " << c.text());
}

} // namespace

int64_t numberAfter(const std::string &text, const std::string &name) {
  const size_t at = (" " + text).find(" " + name + "=");
  return at == std::string::npos ? 0 : std::stoll(text.substr(at + name.size() + 1));
}

PlanInfo inspect(const flashplus_plan &plan) {
  const auto json = nlohmann::json::parse(flashplus_plan_describe(&plan));
  const std::string schedule = json["steps"][0]["schedule"], spec = json["steps"][0]["spec"];
  return {numberAfter(schedule, "tile_m"), numberAfter(schedule, "tile_n"), json["num_splits"],
          int64_t(json["steps"].size()), json["packs_heads"], KernelSpec::parse(spec)->alignment};
}

PlanPtr makePlan(const Instance &instance) {
  flashplus_plan *plan = nullptr;
  require(flashplus_plan_create(Session::get().context(), &instance.args(), &plan),
          instance.problem().text());
  return PlanPtr(plan);
}

DeviceBuffer freshWorkspace(const flashplus_plan &plan) {
  // Whatever a plan of several steps reads of its workspace, it must have written, but for what starts as
  // zeros.
  std::vector<std::byte> content(flashplus_plan_workspace(&plan), std::byte(0xff));
  std::fill_n(content.begin(), std::min<size_t>(content.size(), FLASHPLUS_WORKSPACE_ZEROED), std::byte(0));
  return DeviceBuffer(content);
}

Outputs runPlan(Instance &instance, flashplus_plan &plan) {
  const Session &s = Session::get();
  const DeviceBuffer workspace = freshWorkspace(plan);
  instance.resetOutputs();
  require(flashplus_plan_run(&plan, &instance.args(), workspace.data(), workspace.size(), nullptr),
          instance.problem().text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), instance.problem().text());
  const std::vector<std::byte> after = workspace.read();
  const auto counters =
      after.begin() + std::ptrdiff_t(std::min<size_t>(after.size(), FLASHPLUS_WORKSPACE_ZEROED));
  CHECK_MESSAGE(std::all_of(after.begin(), counters, [](std::byte b) { return b == std::byte(0); }),
                instance.problem().text());
  return {instance.readO(), instance.readLse(), instance.readTiles()};
}

Outputs runForward(Instance &instance) {
  const Session &s = Session::get();
  instance.resetOutputs();
  require(flashplus_forward(s.context(), &instance.args(), nullptr), instance.problem().text());
  require(flashplus_synchronize(s.context(), s.device(), nullptr), instance.problem().text());
  return {instance.readO(), instance.readLse(), instance.readTiles()};
}

int64_t visibleTiles(const Case &c, const PlanInfo &plan) {
  const int64_t tile_m = plan.tile_m, tile_n = plan.tile_n;
  const int64_t group = plan.packs_heads && c.hq ? c.hq / c.hk : 1;
  int64_t tiles = 0;
  for (int64_t b = 0; b < c.batches(); ++b)
    for (int64_t m = 0; m < c.lengthQ(b) * group; m += tile_m)
      for (int64_t n = 0; n < c.lengthK(b); n += tile_n) {
        bool visible = false;
        for (int64_t i = m / group; i <= (std::min(m + tile_m, c.lengthQ(b) * group) - 1) / group && !visible;
             ++i)
          for (int64_t j = n; j < std::min(n + tile_n, c.lengthK(b)) && !visible; ++j)
            visible = c.sees(b, i, j);
        tiles += visible;
      }
  return tiles * (c.hq / group);
}

std::vector<Case> forEveryDtype(const std::vector<Case> &cases) {
  std::vector<Case> all;
  for (DType dtype : Session::get().dtypes())
    for (Case c : cases) {
      c.dtype = dtype;
      all.push_back(std::move(c));
    }
  return all;
}

Row rowOf(const Case &c) {
  Row row;
  for (Case::Field &field : c.fields())
    row.push_back(std::move(field.value));
  return row;
}

std::vector<size_t> chosenOf(const std::vector<Row> &rows) {
  std::vector<size_t> indices(rows.size());
  std::iota(indices.begin(), indices.end(), size_t(0));
  if (!Session::get().pairsOnly())
    return indices;
  // A ledger a test, so that what a test runs does not depend on which others do.
  static const void *test = nullptr;
  static PairLedger ledger;
  if (const void *running = doctest::getContextOptions()->currentTest;
      std::exchange(test, running) != running)
    ledger = {};
  indices = ledger.choose(rows);
  Session::get().recordLeftOut(rows.size() - indices.size());
  return indices;
}

std::vector<Case> chosen(std::vector<Case> cases) {
  std::vector<Row> rows;
  for (const Case &c : cases)
    rows.push_back(rowOf(c));
  std::vector<Case> few;
  for (size_t i : chosenOf(rows))
    few.push_back(std::move(cases[i]));
  return few;
}

void check(const std::vector<Case> &all) {
  const std::vector<Case> cases = chosen(all);
  for (size_t first = 0; first < cases.size(); first += kAtOnce) {
    std::vector<std::unique_ptr<Instance>> instances;
    for (size_t i = first; i < std::min(first + kAtOnce, cases.size()); ++i)
      instances.push_back(std::make_unique<Instance>(cases[i]));
    const std::vector<PlanPtr> plans = makePlans(instances);
    for (size_t i = 0; i < instances.size(); ++i)
      if (plans[i])
        judge(*instances[i], runBothWays(*instances[i], *plans[i]));
  }
}

reference::Actual run(const Case &c) {
  Instance instance(c);
  const PlanPtr plan = makePlan(instance);
  const Outputs outputs = runBothWays(instance, *plan);
  return instance.unpack(outputs.o, outputs.lse);
}

} // namespace flashplus::conformance
