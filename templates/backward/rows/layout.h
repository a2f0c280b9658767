// SPDX-License-Identifier: BSD-3-Clause
// The first and the last step of a backward: backward_delta and backward_sum (spec/operation.h). A work item
// is a block of rows of one (batch entry, query head).
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Rows that a work item has: one a warp on a GPU, a run of rows on a CPU.
inline constexpr int kGpuBackwardRows = 4;
inline constexpr int kGpuSumRows = 64; ///< Of backward_sum on a GPU: 16 a warp.
inline constexpr int kCpuBackwardRows = 64;

} // namespace flashplus
