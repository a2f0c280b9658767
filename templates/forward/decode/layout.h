// SPDX-License-Identifier: BSD-3-Clause
// sm80.decode: few query rows against many keys, as fast as memory gives them. The query heads of a key head
// are packed: an item's rows are (query row, head) pairs, at most tile_m of them where it is chosen. Products
// are transposed, S^T = K Q^T and O^T = V^T P^T, so that 8 rows are the whole of a product's columns, and
// each warp owns its own keys: it has its own ring of K and V in shared memory, its own softmax and O, and
// meets the others only when a block is done with a (sequence, key head). Blocks divide all key tiles of the
// batch among themselves on the device (ranges.h) and merge what they share (merge.h).
// docs/rationale/decode.md
#pragma once

#include "templates/algorithm.h"

#include <algorithm>

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct DecodeLayout {
  int tile_m; ///< Packed rows of an item: 8 a block of columns.
  int tile_n; ///< Keys of a step of one warp.
  int warps;
  int stages;          ///< Steps that a warp's ring holds.
  int least;           ///< Key tiles of a block's range, at least: fewer, shorter shares cost more to merge.
  int l2;              ///< Bytes that one miss of the shared cache brings in, as a hint: 0 (none), 128, 256.
  int dqk, dv;         ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to the 16 of one MMA step.
  int element;         ///< Bytes of an element of q, k, v and o.
  bool tma;            ///< The ring is filled by TMA, else by cp.async.
  bool plain_score;    ///< No score expression; of a plan only.

  int threads() const { return warps * 32; }
  /// The grid before it (ir/grid.h): a chip that has TMA can.
  bool overlaps() const { return tma; }
  int columnBlocks() const { return tile_m / 8; }

  // A warp's ring. By cp.async: one 16-byte chunk of padding keeps the 8 rows of an ldmatrix in different
  // banks. By TMA: slabs of 64 columns, whose rows of 128 bytes are swizzled.
  int kPitch() const { return dqk_pad * element + 16; }
  int vPitch() const { return dv_pad * element + 16; }
  int slab() const { return tile_n * 128; }
  int kSlabs() const { return (dqk + 63) / 64; }
  int vSlabs() const { return (dv + 63) / 64; }
  int v() const { return tma ? kSlabs() * slab() : tile_n * kPitch(); } ///< From the start of a stage.
  int stage() const { return v() + (tma ? vSlabs() * slab() : tile_n * vPitch()); }
  int ring() const { return stages * stage(); }

  // The warps' O, a section of its columns at a time; the ring is full of the next keys by then.
  int sectionColumns() const { return std::min(dv_pad, (tma ? 1024 : 512) / tile_m); }
  /// fp32 from a row to the next: 4 more than a multiple of 16, for the 4 rows and 8 columns that a warp
  /// stores at once lie in different banks then.
  int sectionPitch() const { return sectionColumns() + 4; }
  int section() const { return warps * ring(); }
  static constexpr int kSumBytes = 32; ///< Of what a thread has of a merge, which takes the section's place.
  /// (m, l) a warp and row.
  int statistics() const {
    return section() + std::max(warps * tile_m * sectionPitch() * 4, threads() * kSumBytes);
  }
  int merged() const { return statistics() + warps * tile_m * 8; } ///< (m, l) a row
  int last() const { return merged() + tile_m * 8; } ///< Whether the block is the last one of an item; i32.
  static constexpr int kBarrierBytes = 8;
  int barriers() const { return last() + 16; } ///< Of a ring filled by TMA, for K and for V of each stage.
  int bytes() const { return barriers() + (tma ? warps * stages * 2 * kBarrierBytes : 0); }

  static constexpr int kMostWarps = 8;
  /// Shares that one block merges; of an item with more, groups of kShareGroup are merged first.
  static constexpr int kMostShares = 20, kShareGroup = 8;
  /// Whether that is so: copies by cp.async have addresses, and more accumulators registers, beside which a
  /// second level would spill.
  bool mergesGroups() const { return tma && tile_m <= 16 && dv <= 128; }
  /// Of an item whose first block is `first`: the block whose counter a group has that begins with its share
  /// `group_first`, and the place of the group's result. Numbers or values of the kernel; `max` is the larger
  /// of one and an int.
  template <class T, class Max> static T groupCounter(T first, T group_first, const Max &max) {
    return first + max(group_first - 1, 1);
  }
  template <class T> static T groupPlace(T first, T group) { return (first + 1 + group) * 2 + 1; }
  /// Of an item, that a thread asks for before it uses the first: more where a share is short, for then an
  /// item of as many bytes has more of them.
  int sharesAtOnce() const { return dv <= 64 && tile_m <= 16 ? 16 : 8; }

  /// Registers of a thread that are alive at once: O, Q and S.
  int accumulators() const { return columnBlocks() * (dv_pad / 4 + dqk_pad / 8 + tile_n / 4); }
  /// What a score expression works on.
  int scoreRegisters() const { return 16 + 8 * columnBlocks(); }
  int registers() const { return accumulators() + (plain_score ? 0 : scoreRegisters()); }
  /// Most of them, of a thread's 255: above it ptxas (13.0) spills.
  static constexpr int kMaxRegisters = 128;
  /// For the two versions of a score that a short cut makes (templates/common/score_tile.h).
  bool hasRoomForShortCuts() const { return accumulators() + 2 * scoreRegisters() <= kMaxRegisters; }

  static DecodeLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
