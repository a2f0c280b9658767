// SPDX-License-Identifier: BSD-3-Clause
// cpu.backward: gradients of q, k and v in one pass, one (key head, share of the keys, batch entry) a call. A
// call goes through its tiles of keys, and for each of them through the query tiles that see it: five
//   products a pair of tiles,
//   S = Q K^T    dP = dO V^T    dV += P^T dO    dK += dS^T Q    dQ += dS K
// all of them the same register-blocked loop as cpu.flash's: broadcast one element of the left matrix,
// multiply with nr vectors of the right one. K and V are packed once a tile of keys and serve all query heads
// of the group, whose dK and dV are thereby summed in fp32, in a fixed order. dQ grows in memory that nobody
// else writes: there are no races, and the sums do not depend on how many workers there are. Of one share it
// lies behind the worker's scratch and leaves as dq, of several each has a part in the workspace (dq_parts).
#pragma once

#include "templates/algorithm.h"

namespace flashplus {

/// Knobs and derived sizes. Scratch offsets are in fp32 elements; every block starts 64-byte aligned.
struct CpuBackwardLayout {
  int tile_m, tile_n;  ///< Query rows and keys of a tile.
  int mr, nr;          ///< Register block: mr rows times nr vectors.
  int lanes;           ///< fp32 lanes of a vector.
  int dqk, dv;         ///< Head dims as stored.
  int dqk_pad, dv_pad; ///< Rounded up to whole vectors.
  bool dropout;

  int panel() const { return nr * lanes; }

  // Left matrices are rows; right ones panels of nr vectors, [panels][rows][panel], of which the last may
  // have fewer vectors.
  int kt() const { return 0; }                           ///< K^T [tile_n / panel][dqk_pad][panel]
  int vt() const { return kt() + dqk_pad * tile_n; }     ///< V^T [tile_n / panel][dv_pad][panel]
  int k() const { return vt() + dv_pad * tile_n; }       ///< K in panels of columns, tile_n rows
  int q() const { return k() + dqk_pad * tile_n; }       ///< Q [tile_m][dqk_pad], scaled
  int qPanels() const { return q() + tile_m * dqk_pad; } ///< Q in panels of columns, tile_m rows
  int dout() const { return qPanels() + tile_m * dqk_pad; }
  int doutPanels() const { return dout() + tile_m * dv_pad; }
  int p() const { return doutPanels() + tile_m * dv_pad; } ///< [tile_m][tile_n]: S, then P
  int ds() const { return p() + tile_m * tile_n; }         ///< [tile_m][tile_n]: dP, then dS
  int dk() const { return ds() + tile_m * tile_n; }        ///< [tile_n][dqk_pad]
  int dvSum() const { return dk() + tile_n * dqk_pad; }    ///< [tile_n][dv_pad]
  /// With dropout [tile_m + 1][tile_n] bits: of rows, and a place for what is no row's.
  int kept() const { return dvSum() + tile_n * dv_pad; }
  /// All of these, and where dQ of one share begins: [query head of the group][row][dqk_pad].
  int elements() const { return kept() + (dropout ? roundUp((tile_m + 1) * tile_n / 32 + 1, 16) : 0); }

  /// What a query row of one share's dQ takes of a worker's scratch, of each of `heads`.
  static int64_t dqRowBytes(const KernelSpec &spec, const Target &target, int64_t heads) {
    return heads * roundUp(spec.head_dim_qk, isaInfo(target.isa).vector_lanes) * 4;
  }

  static CpuBackwardLayout of(const KernelSpec &spec, const Schedule &schedule, const Target &target);
};

} // namespace flashplus
