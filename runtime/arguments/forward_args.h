// SPDX-License-Identifier: BSD-3-Clause
// Checks the arguments of a forward and turns them into what the layers below speak: a spec, bounds, options, params.
// Every launch goes through here, so nothing on the good path allocates, parses or formats text.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/score_table.h"
#include "runtime/arguments/tensor_view.h"
#include "spec/kernel_spec.h"
#include "spec/params.h"
#include "templates/common/geometry.h"

namespace flashplus {

/// A forward's KernelSpec as plain data: what launches compare instead of canonical text. `score` belongs to the ScoreTable of
/// the check; two of them may stand for one expression (other names).
struct ProblemSpec : SpecFields {
  const ScoreForm *score = &ScoreForm::identity();

  KernelSpec spec() const;
  /// Same kernel, whatever the callers named their scalars and tensors.
  bool sameSpec(const ProblemSpec &other) const;
};

struct ForwardProblem {
  DLDevice device{};
  ProblemSpec spec;
  Bounds bounds;
  int num_splits = 0; ///< As PlanOptions.
  bool batch_invariant = false;
  const char *schedule = nullptr; ///< The caller's text; null to choose.
  /// Complete but for num_m_tiles, num_splits and the partial results, which the plan decides.
  ForwardParams params;
  bool empty = false; ///< No query row or no head: nothing to compute.
};

/// Fills `out` in, which must be as constructed. InvalidArgument (or Unsupported) names the argument, its value and what
/// is allowed.
Status checkForwardArgs(const flashplus_forward_args *args, DataPointers data, ScoreTable &scores,
                        ForwardProblem &out);

} // namespace flashplus
