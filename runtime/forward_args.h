// SPDX-License-Identifier: BSD-3-Clause
// Checks the arguments of a forward and turns them into what the layers below speak: a spec, bounds, options, params.
#pragma once

#include "flashplus/flashplus.h"
#include "spec/kernel_spec.h"
#include "spec/params.h"
#include "templates/plan.h"

namespace flashplus {

struct ForwardProblem {
  DLDevice device{};
  KernelSpec spec;
  ForwardBounds bounds;
  PlanOptions options;
  /// Complete but for num_m_tiles, num_splits and the partial results, which the plan decides.
  ForwardParams params;
  bool empty = false; ///< No query row or no head: nothing to compute.
};

/// Where tensor data must be: a run needs it, a plan or a spec does not.
enum class DataPointers { Required, Optional };

/// InvalidArgument (or Unsupported) names the argument, its value and what is allowed.
Result<ForwardProblem> checkForwardArgs(const flashplus_forward_args *args, DataPointers data);

} // namespace flashplus
