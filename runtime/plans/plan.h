// SPDX-License-Identifier: BSD-3-Clause
// A plan with its kernels resident: what flashplus_plan is, and what flashplus_forward makes when its memo
// has none.
#pragma once

#include "runtime/context.h"
#include "runtime/arguments/problem.h"
#include "runtime/plans/plan_memo.h"

struct flashplus_plan {
  std::shared_ptr<flashplus::Context> context; ///< Keeps the device, the workers and the score forms,
                                               ///< whatever is destroyed first.
  flashplus::Device *device = nullptr;
  flashplus::ProblemSpec spec;
  flashplus::Bounds bounds;
  flashplus::Plan plan;
  flashplus::LaunchRecord record;
  std::vector<std::shared_ptr<flashplus::ResidentKernel>> kernels; ///< One a step.
  /// Made when it is asked for: most plans never are, and the text costs more than the plan. Guarded
  /// by describePlan().
  mutable std::string description;
};

namespace flashplus {

/// Plans and makes every step's kernel resident. A schedule that does not compile is left out with a warning
/// and the next one is planned. With `may_make` false nothing is compiled or loaded.
Result<std::unique_ptr<flashplus_plan>> makePlan(const std::shared_ptr<Context> &context, Device &device,
                                                 const AttentionProblem &problem, bool may_make);

/// JSON text; thread-safe.
const std::string &describePlan(const flashplus_plan &plan);

} // namespace flashplus
