// SPDX-License-Identifier: BSD-3-Clause
// sm90.backward_kv: dk and dv by tiles of keys, for compute capability 9.0. The sums and their order are
// sm80.backward_kv's, keys in rows,
//   S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q
// on wgmma: the first two products read shared memory alone, the last two have P^T and dS^T as they lie in
// registers, so that no weight passes through shared memory and no two warpgroups wait for each other's.
// `tile_n / 64` warpgroups have 64 keys each. Another one copies: a warp with TMA (K and V of the item, and
// tiles of Q and dO of all query heads of the group), a second one the rows' values, which TMA cannot, as
// they are aligned to 4 bytes. Blocks are persistent: what copies runs ahead into the next work item.
//
// A thread holds (D + D_v) / 2 sums of its two keys: 256 at D 256, more than there are registers. With
// `roles` 2 two warpgroups have the same 64 keys, and one works out S and dV, the other S, dP and dK: one
// product is computed twice, and still no weight passes between the two.
//
// sm90.backward is the same with a fifth product, dQ = dS K, which it adds up in memory (rows/dq_sums.h). dS
// then does pass through shared memory, for every warpgroup to have all keys of its share of dQ.
#pragma once

#include "templates/backward/sm90_pair/layout.h"

#include <algorithm>

namespace flashplus {

/// Knobs and derived sizes. Shared memory offsets are in bytes.
struct Sm90BackwardKVLayout {
  int tile_m, tile_n; ///< Query rows and keys of a tile.
  int stages;         ///< Of Q and dO.
  int kv_stages;      ///< Of K and V: with 2 the next work item's are copied under the present one.
  int roles;          ///< 1: a warpgroup sums dK and dV of its keys; 2: two have the same 64, one sums dV.
  bool pingpong;      ///< Warpgroups take turns on the tensor cores.
  bool adds_dq;       ///< sm90.backward: it sums dQ, too.
  int ds_stages;      ///< Tiles of dS on their way to dQ; 0 without it.
  bool dq_first;      ///< With skew: dQ before dV and dK, so that it leaves under them.
  bool skew;          ///< dQ of a step in the next one, so that no warpgroup waits for the other.
  int dqk, dv;        ///< Head dims as stored.
  bool dropout;

  WarpgroupShares shares() const {
    return {roles * tile_n / 64, !adds_dq && (accumulators() > 200 || tile_m > 64)};
  }
  PairTiles keys() const { return {tile_n, {dqk, dv}, kv_stages}; }
  PairTiles queries() const { return {tile_m, {dqk, dv}, stages}; }

  int keysAt() const { return 0; }
  int queriesAt() const { return keysAt() + keys().bytes(); }
  int weightsAt() const { return queriesAt() + queries().bytes(); } ///< dS, queries x keys, slabs of 64 keys.
  int weightsSlab() const { return tile_m * 128; }
  int weightsStage() const { return tile_n / 64 * weightsSlab(); }
  int rowValues() const {
    return weightsAt() + ds_stages * weightsStage();
  } ///< LSEs of a tile, then its deltas, fp32.
  int rowValuesStage() const { return 2 * tile_m * 4; }
  int barriers() const { return rowValues() + stages * rowValuesStage(); }
  int queryBarriers() const { return barriers() + kv_stages * PairTiles::kBarrierBytes; }
  int itemBarriers() const { return queryBarriers() + stages * PairTiles::kBarrierBytes; }
  static constexpr int kItemSlots = 2, kItemBytes = 32; ///< Work items on their way from the copying warp.
  int weightsBarriers() const { return itemBarriers() + kItemSlots * PairTiles::kBarrierBytes; }
  int items() const { return weightsBarriers() + ds_stages * PairTiles::kBarrierBytes; }
  int bytes() const { return items() + kItemSlots * kItemBytes; }

  // A warpgroup's share of a tile of dQ: 64 of 128 queries and all columns, or 64 queries and half of the
  // columns, a slab.
  bool dqByRows() const { return tile_m == 128; }
  int dqColumns() const { return dqByRows() ? dqk : 64; }

  /// Registers of a thread that are alive at once, besides descriptors, addresses and row values: dK, dV, S
  /// and dP.
  int accumulators() const { return (roles == 2 ? std::max(dqk, dv) : dqk + dv) / 2 + tile_m; }
  /// With what `score` and dropout take beside them.
  int registers(const ScoreExpr &score) const;
  /// Most of them: with more the assembler spills.
  int mostRegisters() const { return shares().mathRegisters() - (shares().most ? 32 : 24); }

  static Sm90BackwardKVLayout of(const KernelSpec &spec, const Schedule &schedule);
};

} // namespace flashplus
