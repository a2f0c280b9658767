// SPDX-License-Identifier: BSD-3-Clause
// sm90.flash: warp-specialised forward for compute capability 9.0, after FlashAttention-3 (Shah et al.,
// 2024). A last warp copies tiles of Q, K and V with TMA into rings of shared memory; `tile_m / 64`
// warpgroups compute 64 query rows each with wgmma, P staying in registers. Inside a warpgroup the product S
// = Q K^T of the next tile is issued before O += P V of the last one, so that the softmax runs under both;
// between warpgroups, named barriers hand the tensor cores round (`pingpong`). Blocks are persistent: the
// copying warp runs ahead into the next work item.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes; every tile is made of slabs of 64 columns
/// (128 bytes, the width of the swizzle) and starts at a multiple of 1024.
struct Sm90FlashLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int stages;         ///< Of K and of V.
  int q_stages;       ///< Of Q: with 2 the next work item's Q is copied under the present one.
  bool pingpong;
  int dqk, dv;
  bool plain_score;
  bool dropout, partial;
  bool paged;      ///< Whose copying thread has boxes to find.
  bool by_lengths; ///< Items are those of the sequences' lengths (templates/common/sequence_items.h), which
                   ///< the copying warp looks for together; else of the longest one's.
  int blocks; ///< Of a multiprocessor: 1, or 2 of one warpgroup of arithmetic each, which have items of their
              ///< own: what an item costs beside its loop runs under the other one's.

  int mathWarpgroups() const { return tile_m / 64; }
  int threads() const { return tile_m * 2 + 128; }
  // setmaxnreg. All threads enter with 65536 / threads registers; the copying warpgroup, of which one warp
  // works, gives most of its share away. With pages and a window it would spill in 24; the math warps' bound
  // of accumulators stays, since what a table has does not spill in 232.
  int copyRegisters() const {
    return mathWarpgroups() == 3 ? 32 : blocks == 2 ? 40 : mathWarpgroups() == 1 ? 56 : searches() ? 40 : 24;
  }
  int mathRegisters() const {
    return mathWarpgroups() == 3   ? 160
           : blocks == 2           ? 216
           : mathWarpgroups() == 1 ? 256
                                   : (searches() ? 232 : 240);
  }
  bool searches() const { return paged || by_lengths; } ///< The copying warp has more to do than to copy.

  int qkSteps() const { return (dqk + 15) / 16; } ///< wgmma steps over the head dim; the tail is zeros.
  int dvPad() const { return roundUp(dv, 8); }    ///< N of the second product.
  int qkSlabs() const { return (dqk + 63) / 64; }
  int vSlabs() const { return (dv + 63) / 64; }
  int qBytes() const { return qkSlabs() * tile_m * 128; }
  int kBytes() const { return qkSlabs() * tile_n * 128; }
  int vBytes() const { return vSlabs() * tile_n * 128; }

  int q() const { return 0; }
  int k() const { return q() + q_stages * qBytes(); }
  int v() const { return k() + stages * kBytes(); }
  int barriers() const { return v() + stages * vBytes(); } ///< Of Q, K, V and items: full and empty ones.
  static constexpr int kItemSlots = 2, kItemBytes = 32;    ///< Work items on their way from the copying warp.
  int items() const { return barriers() + 16 * (q_stages + 2 * stages + kItemSlots); }
  /// Where the copying warp is in the line of items, by lane: it has no registers for that while it copies.
  static constexpr int kCursorBytes = 28;
  int cursor() const { return items() + kItemSlots * kItemBytes; }
  int bytes() const { return cursor() + (by_lengths ? 32 * kCursorBytes : 0); }

  /// fp32-sized registers of a thread that are alive at once: S, P (half as many, packed) and O.
  int accumulators() const { return tile_n / 2 + tile_n / 4 + dvPad() / 2; }
  /// The rest holds descriptors, addresses, masks and row statistics, and what a score expression needs; with
  /// less the assembler spills.
  int mostAccumulators() const {
    const int all = mathWarpgroups() == 2 ? 240 : mathRegisters();
    const int most = all - (plain_score || mathWarpgroups() == 3 ? 32 : 48);
    // The mask of a tile, while nothing that a score works on is alive; 192 x 128 at D 64 would spill.
    // And partial results have addresses of their own: 192 x 80 at D 128 would.
    return dropout ? most - tile_n / 8 + (partial ? 0 : 8) : most;
  }

  static Sm90FlashLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
