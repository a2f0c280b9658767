// SPDX-License-Identifier: BSD-3-Clause
// The first and the last step of a backward: backward_delta and backward_sum (spec/operation.h). A work item
// is a block of rows of one (batch entry, query head).
#pragma once

#include "templates/algorithm.h"

#include <bit>

namespace flashplus {

/// Rows that a work item has.
inline constexpr int kGpuSumRows = 64; ///< Of backward_sum on a GPU: 16 a warp.
inline constexpr int kCpuBackwardRows = 64;

/// How the warps of backward_delta on a GPU share rows: 16 bytes a lane, several rows at once and one after
/// the other, where rows are aligned so; else a row a warp, element by element.
struct DeltaRows {
  bool by_pieces;
  int lanes;  ///< Of a row, a power of two.
  int passes; ///< Rows of a lane.
  static constexpr int kMostPasses = 2, kWarps = 4;

  int perWarp() const { return 32 / lanes * passes; }

  static DeltaRows of(const KernelSpec &spec) {
    if (spec.alignment != 16 || spec.head_dim_v % 8)
      return {false, 32, 1};
    return {true, int(std::bit_ceil(unsigned(spec.head_dim_v / 8))), kMostPasses};
  }
};

} // namespace flashplus
