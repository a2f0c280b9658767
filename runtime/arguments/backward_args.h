// SPDX-License-Identifier: BSD-3-Clause
// Checks the arguments of a backward; otherwise as forward_args.h.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/problem.h"
#include "runtime/arguments/tensor_view.h"
#include "spec/params.h"

namespace flashplus {

struct BackwardProblem : AttentionProblem {
  static constexpr Operation kOperation = Operation::Backward;

  /// Complete but for what a step's binder adds: its tiles and items, and where its values are in the
  /// workspace.
  BackwardParams params;

  /// Gradients of the score's own inputs: by the bits of spec.score_grads.
  struct ScoreGradients {
    static constexpr int kMost = kMaxScoreScalars + kMaxScoreTensors;
    void *data[kMost] = {};
    int64_t elements[kMost] = {};
  } score_gradients;
};

/// Fills `out` in, which must be as constructed. InvalidArgument (or Unsupported) names the argument, its
/// value and what is allowed.
Status checkBackwardArgs(const flashplus_backward_args *args, DataPointers data, ScoreTable &scores,
                         BackwardProblem &out);

} // namespace flashplus
