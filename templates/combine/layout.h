// SPDX-License-Identifier: BSD-3-Clause
// Combine: merges the partial results of a forward that was split over the keys. With partial outputs o_i,
// each
// normalised, and natural-log sums lse_i:  lse = ln sum_i exp(lse_i),  o = sum_i exp(lse_i - lse) o_i.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Rows of one (batch, head) that a work item merges: one a warp on a GPU, a run of rows on a CPU.
inline constexpr int kGpuCombineRows = 4;
inline constexpr int kCpuCombineRows = 8;

} // namespace flashplus
