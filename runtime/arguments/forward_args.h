// SPDX-License-Identifier: BSD-3-Clause
// Checks the arguments of a forward and turns them into what the layers below speak: a spec, bounds, options,
// params. Every launch goes through here, so nothing on the good path allocates, parses or formats text.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/problem.h"
#include "runtime/arguments/tensor_view.h"
#include "spec/params.h"

#include <optional>

namespace flashplus {

struct ForwardProblem : AttentionProblem {
  static constexpr Operation kOperation = Operation::Forward;

  /// Complete but for num_m_tiles, num_splits and the partial results, which the plan decides.
  ForwardParams params;
  /// Of a call with new keys; complete but for what the plan decides.
  std::optional<AppendParams> append;
};

/// Fills `out` in, which must be as constructed. InvalidArgument (or Unsupported) names the argument, its
/// value and what is allowed.
Status checkForwardArgs(const flashplus_forward_args *args, DataPointers data, ScoreTable &scores,
                        ForwardProblem &out);

} // namespace flashplus
