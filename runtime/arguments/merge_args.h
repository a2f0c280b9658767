// SPDX-License-Identifier: BSD-3-Clause
// Checks the arguments of a merge; otherwise as forward_args.h.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/problem.h"
#include "runtime/arguments/tensor_view.h"
#include "spec/params.h"

namespace flashplus {

struct MergeProblem : AttentionProblem {
  static constexpr Operation kOperation = Operation::Merge;

  MergeParams params; ///< Complete but for num_row_blocks.
};

/// Fills `out` in, which must be as constructed. InvalidArgument names the argument, its value and what is
/// allowed.
Status checkMergeArgs(const flashplus_merge_args *args, DataPointers data, ScoreTable &scores,
                      MergeProblem &out);

} // namespace flashplus
