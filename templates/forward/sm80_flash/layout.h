// SPDX-License-Identifier: BSD-3-Clause
// sm80.flash: FlashAttention-2's structure (Dao, 2023) on mma.sync m16n8k16. Warps are stacked along the
// query rows, each owning `m_frags` times 16 rows and all keys of a tile, so that softmax needs no traffic
// between warps and P passes from the first product's accumulators to the second one's operands in registers.
// K and V arrive by cp.async: with one stage each is loaded under the other one's product (two barriers a
// tile), with two under the tile before (one barrier).
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct Sm80FlashLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int warps;
  int stages;          ///< Buffers of K and of V: 1 or 2.
  int m_frags;         ///< 16-row fragments of a warp: tile_m / (16 * warps).
  int dqk, dv;         ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to the 16 of one MMA step.
  int element;         ///< Bytes of an element of q, k, v and o.
  bool plain_score;    ///< No score expression; of a plan only.
  bool paged;          ///< Keys in pages, whose rows each have an address.
  bool dropout;        ///< Which holds a word for every four probabilities, two a thread of each 16 x 16.

  int threads() const { return warps * 32; }
  // One 16-byte chunk of padding makes the row pitch an odd number of chunks: the 8 rows that one ldmatrix
  // phase reads then lie in different banks for every head dim, and all offsets stay constants (an XOR
  // swizzle needs a power of two of chunks and an address computation per step).
  int qPitch() const { return (dqk_pad > dv_pad ? dqk_pad : dv_pad) * element + 16; } ///< O leaves through
                                                                                      ///< Q's memory.
  int kPitch() const { return dqk_pad * element + 16; }
  int vPitch() const { return dv_pad * element + 16; }
  int q() const { return 0; }
  int k() const { return q() + tile_m * qPitch(); }
  int kStage() const { return tile_n * kPitch(); }
  int vStage() const { return tile_n * vPitch(); }
  int v() const { return k() + stages * kStage(); }
  int bytes() const { return v() + stages * vStage(); }

  /// Registers of a thread that are alive at once, besides fragments, row statistics and addresses: O and S.
  int accumulators() const { return m_frags * (dv_pad + tile_n) / 2; }
  static constexpr int kScoreRegisters = 16; ///< What a score expression works on.
  int registers() const {
    return accumulators() + (plain_score ? 0 : kScoreRegisters) + (dropout ? m_frags * tile_n / 8 : 0) +
           (paged ? 24 : 0);
  }
  /// Most of them, of a thread's 255: above it ptxas (13.0) spills.
  static constexpr int kMaxRegisters = 192;
  /// For the two versions of a score that a short cut makes (templates/common/score_tile.h).
  bool hasRoomForShortCuts() const {
    return !dropout && accumulators() + 2 * kScoreRegisters <= kMaxRegisters;
  }

  static Sm80FlashLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
