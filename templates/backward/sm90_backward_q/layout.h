// SPDX-License-Identifier: BSD-3-Clause
// sm90.backward_q: dq by tiles of query rows, for compute capability 9.0. A work item is a forward's: its Q
// and dO stay in shared memory while tiles of K and V pass, and dQ in registers,
//   S = Q K^T    dP = dO V^T    dQ += dS K
// on wgmma. `tile_m / 64` warpgroups have 64 query rows each; dS passes from the accumulators of dP to the
// left operand of dQ in registers. A last warp copies with TMA and, as blocks are persistent, runs ahead into
// the next work item.
#pragma once

#include "templates/backward/sm90_pair/layout.h"

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct Sm90BackwardQLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int stages;         ///< Of K and V.
  int q_stages;       ///< Of Q and dO: with 2 the next work item's are copied under the present one.
  bool pingpong;      ///< Warpgroups take turns on the tensor cores.
  int dqk, dv;        ///< Head dims as stored.
  bool dropout;

  WarpgroupShares shares() const { return {tile_m / 64}; }
  PairTiles queries() const { return {tile_m, {dqk, dv}, q_stages}; }
  PairTiles keys() const { return {tile_n, {dqk, dv}, stages}; }

  int queriesAt() const { return 0; }
  int keysAt() const { return queriesAt() + queries().bytes(); }
  int barriers() const { return keysAt() + keys().bytes(); }
  int keyBarriers() const { return barriers() + q_stages * PairTiles::kBarrierBytes; }
  int itemBarriers() const { return keyBarriers() + stages * PairTiles::kBarrierBytes; }
  static constexpr int kItemSlots = 2, kItemBytes = 32; ///< Work items on their way from the copying warp.
  int items() const { return itemBarriers() + kItemSlots * PairTiles::kBarrierBytes; }
  int bytes() const { return items() + kItemSlots * kItemBytes; }

  /// Registers of a thread that are alive at once, besides descriptors, addresses and row values: dQ, S and
  /// dP.
  int accumulators() const { return dqk / 2 + tile_n; }
  /// With what `score` and dropout take beside them.
  int registers(const ScoreExpr &score) const;
  /// Most of them: with more the assembler spills.
  int mostRegisters() const { return shares().mathRegisters() - 32; }

  static Sm90BackwardQLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
