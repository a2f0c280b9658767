// SPDX-License-Identifier: BSD-3-Clause
// sm80.backward_q: dq by tiles of query rows, on mma.sync m16n8k16. A work item is a forward's: its Q and dO
// stay in shared memory while tiles of K and V pass, and dQ in registers,
//   S = Q K^T    dP = dO V^T    dQ += dS K
// Warps are stacked along the query rows, each with 16 m_frags of them, whose LSE and delta it holds; dS
// passes from the accumulators of dP to the left operands of dQ in registers.
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct Sm80BackwardQLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int warps;
  int stages;          ///< Buffers of K and of V: 1 or 2.
  int m_frags;         ///< 16-row fragments of a warp: tile_m / (16 * warps).
  int dqk, dv;         ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to the 16 of one MMA step.

  int threads() const { return warps * 32; }

  // Row pitches of an odd number of 16-byte chunks, as sm80.flash's.
  int qkPitch() const { return dqk_pad * 2 + 16; }
  int vPitch() const { return dv_pad * 2 + 16; }
  int q() const { return 0; } ///< dQ leaves through it.
  int dout() const { return q() + tile_m * qkPitch(); }
  int k() const { return dout() + tile_m * vPitch(); }
  int kStage() const { return tile_n * qkPitch(); }
  int v() const { return k() + stages * kStage(); }
  int vStage() const { return tile_n * vPitch(); }
  int bytes() const { return v() + stages * vStage(); }

  /// Registers of a thread that are alive at once, besides fragments, row values and addresses: dQ, S and dP.
  int accumulators() const { return m_frags * (dqk_pad / 2 + tile_n); }
  /// Most of them, of a thread's 255: above it ptxas (13.0) spills.
  static constexpr int kMaxRegisters = 176;

  static Sm80BackwardQLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
