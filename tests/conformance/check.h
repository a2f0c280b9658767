// SPDX-License-Identifier: BSD-3-Clause
// Runs cases and judges them: the same rules for every case, whatever its theme.
#pragma once

#include "tests/conformance/instance.h"
#include "tests/conformance/pairs.h"
#include "tests/conformance/session.h"

namespace flashplus::conformance {

struct PlanDeleter {
  void operator()(flashplus_plan *plan) const { flashplus_plan_destroy(plan); }
};
using PlanPtr = std::unique_ptr<flashplus_plan, PlanDeleter>;

/// What a plan says of itself (flashplus_plan_describe).
struct PlanInfo {
  int64_t tile_m = 0, tile_n = 0, num_splits = 0, steps = 0;
  bool packs_heads = false; ///< The rows of a tile are (query row, head of the group) pairs.
  int64_t alignment = 0;
};
PlanInfo inspect(const flashplus_plan &plan);
/// The number after "name=" in text like "cpu.flash mr=6 nr=2 tile_m=96"; 0 if there is none.
int64_t numberAfter(const std::string &text, const std::string &name);

/// What a run left in the memory of o and lse.
struct Outputs {
  std::vector<std::byte> o, lse;
  int64_t tiles = 0;

  bool operator==(const Outputs &) const = default;
};

/// Makes a plan; fails the test if there is none.
PlanPtr makePlan(const Instance &instance);
/// A workspace as a caller makes it: zeros where they are asked for, poison elsewhere.
DeviceBuffer freshWorkspace(const flashplus_plan &plan);
/// Poisoned outputs and workspace, one run of the plan.
Outputs runPlan(Instance &instance, flashplus_plan &plan);
/// Poisoned outputs, flashplus_forward.
Outputs runForward(Instance &instance);

/// Tiles of tile_m x tile_n that hold a visible (query, key) pair, over all heads, by trying every pair.
int64_t visibleTiles(const Case &c, const PlanInfo &plan);

/// Each of `cases` once per storage type of the device.
std::vector<Case> forEveryDtype(const std::vector<Case> &cases);

/// A case as a row of pairs.h.
Row rowOf(const Case &c);
/// Indices of all of `rows`, or where Session::pairsOnly() of those that the running test has to run, given
/// what it has run so far. Call it with the cases as they will run.
std::vector<size_t> chosenOf(const std::vector<Row> &rows);
std::vector<Case> chosen(std::vector<Case> cases);

/// Plans chosen(cases) (kernels are compiled on several threads), runs each by plan and by flashplus_forward,
/// and checks
///  - o and lse against fp64 by the rule of reference/compare.h,
///  - that both runs give the same bits, and leave what is not a valid row, and the inputs, as it was,
///  - that the key tiles visited are those with a visible key.
void check(const std::vector<Case> &cases);

/// The same without the comparison with the reference, for tests that know the exact result: returns o and
/// lse in the layout of reference::Output.
reference::Actual run(const Case &c);

} // namespace flashplus::conformance
