// SPDX-License-Identifier: BSD-3-Clause
// sm80.backward_kv: dk and dv by tiles of keys, on mma.sync m16n8k16. A work item has a tile of keys of one
// key head: its K and V stay in shared memory while tiles of Q and dO of all query heads of the group pass,
// and dK and dV in registers. Everything is transposed, keys in rows,
//   S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q
// so that P^T and dS^T are the next products' left operands as they lie (templates/common/fragment_layout.h).
//
// Warps are stacked along the keys, each with 16 n_frags of them. With `parts` 2 a pair of warps has the same
// keys: each works out the weights of half of the queries and sums half of the columns of dK and dV, and
// weights pass between the two through shared memory, a barrier more a tile. That halves the sums that a
// thread holds, which large head dims need (docs/rationale/backward-gpu.md).
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct Sm80BackwardKVLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int warps;
  int parts;           ///< Warps with the same keys: 1 or 2.
  int stages;          ///< Buffers of Q and of dO: 1 or 2.
  int n_frags;         ///< 16-key fragments of a warp.
  int dqk, dv;         ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to the 16 columns of one MMA step, of each part.
  bool by_element;     ///< Rows are aligned to an element only.
  bool window_dropout; ///< Dropout with a left bound: words of its mask, and both ends of the other one.

  int threads() const { return warps * 32; }
  int partM() const { return tile_m / parts; } ///< Query rows whose weights a warp works out.

  // Row pitches of an odd number of 16-byte chunks, as sm80.flash's.
  int qkPitch() const { return dqk_pad * 2 + 16; }
  int vPitch() const { return dv_pad * 2 + 16; }
  int k() const { return 0; }
  int v() const { return k() + tile_n * qkPitch(); }
  int q() const { return v() + tile_n * vPitch(); }
  int qStage() const { return tile_m * qkPitch(); }
  int dout() const { return q() + stages * qStage(); }
  int doutStage() const { return tile_m * vPitch(); }
  int rowValues() const { return dout() + stages * doutStage(); } ///< LSEs of a tile, then its deltas, fp32.
  int rowValuesStage() const { return 2 * tile_m * 4; }
  // Weights that pass between parts, as left operands: [P, dS][16 keys][16 queries] of 512 bytes, 16 a lane.
  int weights() const { return rowValues() + stages * rowValuesStage(); }
  int weightsOfDS() const { return tile_n * tile_m * 2; }
  int bytes() const { return weights() + (parts > 1 ? 2 * weightsOfDS() : 0); }

  /// Registers of a thread that are alive at once, besides fragments, row values and addresses: dK, dV, S and
  /// dP.
  int accumulators() const { return n_frags * ((dqk_pad + dv_pad) / (2 * parts) + partM()); }
  static constexpr int kElementRegisters = 16; ///< What loading element by element takes.
  /// With what `score` takes beside them: p dw/ds beside P where slopes are not 1, and addresses of tensors
  /// that are read element by element.
  int registers(const ScoreExpr &score) const;
  /// Most of them, of a thread's 255: above it ptxas (13.0) spills.
  static constexpr int kMaxRegisters = 192;

  static Sm80BackwardKVLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
