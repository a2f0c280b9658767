// SPDX-License-Identifier: BSD-3-Clause
// Merge: two results of the same queries over different keys become one. With
// outputs o_a and o_b, each normalised, and natural-log sums of exponentials lse_a and lse_b:
//   lse = ln(exp(lse_a) + exp(lse_b)),  o = exp(lse_a - lse) o_a + exp(lse_b - lse) o_b.
// An infinite lse, of either sign, is a side without a key: what lies in its o is never used. In fp32,
// rounded once. A thread writes only what it has read, so that o and lse may be those of a side.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Rows of one (batch, head) that a work item merges: one a warp on a GPU, a run of rows on a CPU.
inline constexpr int kGpuMergeRows = 4;
inline constexpr int kCpuMergeRows = 8;

} // namespace flashplus
