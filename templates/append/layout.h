// SPDX-License-Identifier: BSD-3-Clause
// Append: new keys and values into the cache, before a forward reads it (spec/params.h). A work item is a
// block of rows of one batch entry; a row is that of one head.
#pragma once

#include "templates/algorithm.h"

#include <algorithm>
#include <bit>

namespace flashplus {

/// Rows that an item of a CPU has, one after another.
inline constexpr int kCpuAppendRows = 32;
/// Threads of a GPU's block.
inline constexpr int kGpuAppendThreads = 128;

/// Elements of 16 bits in the 16 bytes that a GPU's thread moves at once.
inline constexpr int kWideElements = 8;

/// Threads that have a row: so many that each moves 16 bytes of it, but a warp at most.
constexpr int gpuAppendLanes(const SpecFields &spec) {
  const int units = (std::max(spec.head_dim_qk, spec.head_dim_v) + kWideElements - 1) / kWideElements;
  return std::min(32, int(std::bit_ceil(unsigned(units))));
}

} // namespace flashplus
