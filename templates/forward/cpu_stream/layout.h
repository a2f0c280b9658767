// SPDX-License-Identifier: BSD-3-Clause
// cpu.stream: attention of a few rows, one (m tile, group of key heads, split, batch) a call; a row is a
// (query row, head of the key head's group) pair. With so few rows reading K and V is the work, so both are
// read in place, once and in the order in which they lie: a few keys at a time go through all the item's key
// heads, since a row of a tensor usually holds the heads side by side. What is read is asked for a tile
// ahead.
//
// A register has a score per lane: lane l belongs to row l / unroll and, of `unroll` keys in a row, to key l
// % unroll. Masks, softmax and score expressions work on all rows at once. Scores are `lanes` sums over
// vectors along the head dim; the output of a row is kept in memory and gathers a tile's keys at a time,
// vectors along the head dim too.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Scratch offsets are in dwords; every block starts 64-byte aligned.
struct CpuStreamLayout {
  int tile_m, tile_n;    ///< Rows; keys of a tile, which go through the softmax together.
  int heads;             ///< Key heads of a work item, at most.
  int lanes;             ///< fp32 lanes of a vector.
  int unroll;            ///< Keys whose scores share a vector: lanes / tile_m.
  int dqk, dv;           ///< Head dims as stored.
  int depth_pad, dv_pad; ///< Rounded up to whole chunks.
  bool paged;

  int chunk() const { return 2 * lanes; } ///< Elements of a row that are loaded together (cpu::loadChunk).

  // Scratch, in dwords: a block for each head, then what the heads use in turn.
  int q() const { return 0; }                          ///< [tile_m][depth_pad] scaled, in the order of
                                                       ///< cpu::loadChunk
  int o() const { return q() + tile_m * depth_pad; }   ///< [tile_m][dv_pad], in the order of cpu::loadChunk
  int rowMax() const { return o() + tile_m * dv_pad; } ///< [lanes]
  int rowSum() const { return rowMax() + 16; }         ///< [lanes]
  int headDwords() const { return rowSum() + 16; }
  int s() const { return heads * headDwords(); }       ///< [tile_n / unroll][lanes] scores, then
                                                       ///< probabilities
  /// Of paged keys: where the rows of K and of V of the tile at work and of the next one lie, in bytes, the
  /// same for all heads: int64 [2 tiles][2][tile_n].
  int rows() const { return s() + roundUp(tile_n * tile_m, 16); }
  int tileRows() const { return 4 * tile_n; } ///< Of one tile.
  int dwords() const { return paged ? rows() + 2 * tileRows() : s() + tile_n * tile_m; }

  static CpuStreamLayout of(const KernelSpec &spec, const Schedule &schedule, const Target &target);
};

} // namespace flashplus
