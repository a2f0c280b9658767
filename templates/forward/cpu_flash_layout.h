// SPDX-License-Identifier: BSD-3-Clause
// cpu.flash: tiled attention with online softmax on vector registers, one (m tile, head, split, batch) a call.
// Tiles of Q, K and V are packed to fp32 in the worker's scratch, K transposed, so that both products are the same
// register-blocked loop: broadcast one element of the left matrix, multiply with vectors of the right one.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Scratch offsets are in floats; every block starts 64-byte aligned.
struct CpuFlashLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int mr, nr;         ///< Register block: mr rows times nr vectors.
  int lanes;          ///< fp32 lanes of a vector.
  int dqk, dv;        ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to whole vectors.

  // Scratch, in floats.
  int q() const { return 0; }                       ///< [tile_m][dqk_pad], scaled
  int kt() const { return q() + tile_m * dqk_pad; } ///< [dqk_pad][tile_n]
  int v() const { return kt() + dqk_pad * tile_n; } ///< [tile_n][dv_pad]
  int s() const { return v() + tile_n * dv_pad; }   ///< [tile_m][tile_n]
  int o() const { return s() + tile_m * tile_n; }   ///< [tile_m][dv_pad]
  int rowMax() const { return o() + tile_m * dv_pad; }
  int rowSum() const { return rowMax() + roundUp(tile_m, 16); }
  int rowAlpha() const { return rowSum() + roundUp(tile_m, 16); } ///< Factor for O after a new row maximum.
  int floats() const { return rowAlpha() + roundUp(tile_m, 16); }

  static CpuFlashLayout of(const KernelSpec &spec, const Schedule &schedule, const Target &target);
};

} // namespace flashplus
