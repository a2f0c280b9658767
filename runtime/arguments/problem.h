// SPDX-License-Identifier: BSD-3-Clause
// What the checks of every operation's arguments come to, in the terms of the layers below. Keys, plans and
// launches know this much of a call; the params of its kernels are added by each operation (ForwardProblem)
// and read by its binders.
#pragma once

#include "runtime/arguments/score_table.h"
#include "spec/kernel_spec.h"
#include "templates/common/geometry.h"

#include <cassert>
#include <dlpack/dlpack.h>

namespace flashplus {

/// A KernelSpec as plain data: what launches compare instead of canonical text. `score` is of the
/// ScoreTable of the check, which says how long it lives; two may stand for one expression (other names).
struct ProblemSpec : SpecFields {
  const ScoreForm *score = &ScoreForm::identity();

  KernelSpec spec() const;
  /// Same kernel, whatever the callers named their scalars and tensors.
  bool sameSpec(const ProblemSpec &other) const;
};

/// Made by the checks as an operation's own problem, a struct derived from it that has `kOperation` and
/// `params`: those of the first step's kernels, complete but for what the plan decides.
struct AttentionProblem {
  DLDevice device{};
  ProblemSpec spec; ///< spec.op says whose problem it is.
  Bounds bounds;
  int num_splits = 0; ///< As PlanOptions.
  bool batch_invariant = false;
  bool any_order = false; ///< As PlanOptions.
  bool empty = false;             ///< No query row or no head: nothing to compute.
  const char *schedule = nullptr; ///< The caller's text; null to choose.
};

/// The problem as the operation's own.
template <class Own> Own &problemAs(AttentionProblem &problem) {
  assert(problem.spec.op == Own::kOperation);
  return static_cast<Own &>(problem);
}

} // namespace flashplus
