// SPDX-License-Identifier: BSD-3-Clause
// What sm90.backward_kv and sm90.backward_q have in common: one pair of operands (K and V, or Q and dO) stays
// in shared memory for a work item while tiles of the other pair pass. Either is a ring of stages in which
// two tiles with the same rows arrive together. No LLVM here.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Tiles of a pair's ring. Every tile is made of slabs of 64 columns (128 bytes, the width of the swizzle)
/// and starts at a multiple of 1024 bytes.
struct PairTiles {
  int rows;    ///< A multiple of 8.
  int dims[2]; ///< Columns of the first (K, Q: head_dim_qk) and of the second one (V, dO: head_dim_v).
  int stages;

  int slabBytes() const { return rows * 128; }
  int slabs(int which) const { return (dims[which] + 63) / 64; }
  int tileBytes(int which) const { return slabs(which) * slabBytes(); }
  int stageBytes() const { return tileBytes(0) + tileBytes(1); }
  int bytes() const { return stages * stageBytes(); }
  static constexpr int kBarrierBytes = 16; ///< Of a stage.
};

/// Threads and registers of a block with `math` warpgroups, 64 rows each, and one that copies.
struct WarpgroupShares {
  int math;
  bool most = false; ///< The math warpgroups of two need every register that there is.

  int threads() const { return 128 * (math + 1); }
  // setmaxnreg. All threads enter with 65536 / threads registers; the copying warpgroup, of which two warps
  // work at most, gives most of its share away.
  int copyRegisters() const { return math == 1 ? 56 : math == 2 ? (most ? 24 : 40) : 32; }
  int mathRegisters() const { return math == 1 ? 256 : math == 2 ? (most ? 240 : 232) : 160; }
};

/// Unsupported, if an algorithm that copies with TMA cannot take `spec`.
Status takesTma(const KernelSpec &spec, const Schedule &schedule);

} // namespace flashplus
