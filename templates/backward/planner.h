// SPDX-License-Identifier: BSD-3-Clause
// Plans a backward: the rows' values, then the gradients by one of two forms,
//   backward [ backward_sum ]    one kernel for all three gradients, and with shares of the keys a sum of
//                                their parts of dq
//   backward_kv, backward_q      two kernels, where a target has no algorithm for the first
// and then, where the spec wants some, the gradients of the score's own inputs, backward_score.
// All but the last on a GPU add in an order that depends on the problem alone, so that results are the same
// bits whatever device state, grid or number of workers there is.
#pragma once

#include "templates/planner.h"

#include <vector>

namespace flashplus {

/// The workspace's parts.
enum BackwardPart { kBackwardCounter, kRowLse, kRowDelta, kDQParts };

/// Makes the plans of a backward whose spec (results final) is `spec`. A step that adds dq up in memory
/// (ItemTraits::adds_dq) has one part, which the first step clears and the sum rounds; its dq differs from
/// run to run in the last bits.
class BackwardPlanner final : public Planner {
public:
  BackwardPlanner(const KernelSpec &spec, const DeviceProfile &device);
  /// Of `options`, num_splits must be 0; batch_invariant holds anyway. A forced or rejected schedule is one
  /// of any of the steps but the first and the sum.
  Result<Plan> plan(const Bounds &bounds, const PlanOptions &options) const override;

private:
  struct Step {
    KernelSpec spec;
    std::vector<Candidate> candidates;
  };
  Step step(KernelSpec spec) const;
  /// The steps whose schedules may be forced.
  std::vector<const Step *> chosenSteps(const PlanOptions &options) const;
  /// Whether one kernel makes all three gradients.
  bool takesWhole(const PlanOptions &options) const;
  /// A forced schedule that is of none of them would be ignored: Unsupported names those that there are.
  Status checkForced(const PlanOptions &options) const;
  /// What a plan does with a step.
  struct Choice {
    Candidate candidate;
    const std::string *record = nullptr; ///< The tuning record that it is from, if it is from one.
  };
  /// The forced schedule, what a record has for problems of this size, or the first candidate. Fails if no
  /// candidate is left.
  Result<Choice> choose(const Step &step, const Bounds &bounds, const PlanOptions &options) const;
  /// Chooses and adds a step, and notes in the plan where the choice is from.
  Status addChosen(Plan &plan, const Step &step, const Bounds &bounds, const PlanOptions &options) const;
  Status addScoreSteps(Plan &plan, const Bounds &bounds, const PlanOptions &options) const;
  Status addStep(Plan &plan, const KernelSpec &spec, const Candidate &chosen, int splits, int64_t row_scratch,
                 const Bounds &bounds) const;

  KernelSpec spec_;
  DeviceProfile device_;
  Step delta_, whole_, sum_, kv_, q_, score_;
};

/// One plan.
Result<Plan> planBackward(const KernelSpec &spec, const Bounds &bounds, const DeviceProfile &device,
                          const PlanOptions &options);

/// The specs of the steps that may be forced or tuned, of all plans.
std::vector<KernelSpec> tunedBackwardSteps(const KernelSpec &spec, const Target &target);

/// The kernels that any plan of `spec` on `device` can use.
std::vector<PlannedKernel> reachableBackwardKernels(const KernelSpec &spec, const DeviceProfile &device);

} // namespace flashplus
