// SPDX-License-Identifier: BSD-3-Clause
// cpu.flash: tiled attention with online softmax on vector registers, one (m tile, key head, split, batch) a
// call. A tile's rows are (query row, head of the key head's group) pairs, the heads of a row side by side,
// so that K and V are read once for all of them.
//
// Tiles of K and V are packed in the worker's scratch into panels of nr vectors, K transposed, so that both
// products are the same register-blocked loop: broadcast one element of the left matrix, multiply with nr
// vectors of the right one. Then each block of mr rows goes through both products and the softmax between
// them while its scores are in the first-level cache, and skips the panels that are hidden from all its rows.
//
// Elements are fp32, or with pairs=1 (bf16 only) dwords of two bf16 along the summed dimension, multiplied
// and added as a pair: by one instruction where the target has it, else by two.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Scratch offsets are in dwords; every block starts 64-byte aligned.
struct CpuFlashLayout {
  int tile_m, tile_n; ///< Rows and keys of a tile.
  int mr, nr;         ///< Register block: mr rows times nr vectors.
  bool pairs, dropout;
  int lanes;           ///< fp32 lanes of a vector.
  int dqk, dv;         ///< Head dims as stored.
  int depth;           ///< Elements of a row of Q and K: dqk, or pairs of them.
  int depth_pad, dv_pad; ///< Rounded up to whole vectors.
  int v_rows;          ///< Rows of V's tile: keys, or pairs of them.

  int panel() const { return nr * lanes; }

  // Scratch, in dwords.
  int q() const { return 0; }                          ///< [tile_m][depth_pad], scaled unless in pairs
  int kt() const { return q() + tile_m * depth_pad; }  ///< [tile_n / panel][depth_pad][panel]
  int v() const { return kt() + depth_pad * tile_n; }  ///< [panels][v_rows][panel]; the last panel may have
                                                       ///< fewer vectors
  int s() const { return v() + v_rows * dv_pad; }      ///< [mr][tile_n] fp32 scores of one block, then its
                                                       ///< probabilities
  int p() const { return s() + mr * tile_n; }          ///< [mr][tile_n / 2] pairs: the probabilities in bf16
  int o() const { return p() + (pairs ? mr * tile_n / 2 : 0); } ///< [tile_m][dv_pad] fp32
  int rowMax() const { return o() + tile_m * dv_pad; }
  int rowSum() const { return rowMax() + roundUp(tile_m, 16); }
  int rowAlpha() const { return rowSum() + roundUp(tile_m, 16); } ///< [mr] factors for O after a new row
                                                                  ///< maximum
  int kept() const { return rowAlpha() + roundUp(mr, 16); } ///< With dropout [tile_m + 1][tile_n] bits: of
                                                            ///< rows, and a place for what is no row's
  int dwords() const { return kept() + (dropout ? roundUp((tile_m + 1) * tile_n / 32 + 1, 16) : 0); }

  static CpuFlashLayout of(const KernelSpec &spec, const Schedule &schedule, const Target &target);
};

} // namespace flashplus
