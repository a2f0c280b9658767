// SPDX-License-Identifier: BSD-3-Clause
// What the roles of sm90.backward_kv, copying tiles, copying rows' values and arithmetic, have in common.
#pragma once

#include "ir/warp.h"
#include "templates/backward/query_walk.h"
#include "templates/backward/sm90_backward_kv/layout.h"
#include "templates/backward/sm90_pair/pair_ring.h"
#include "templates/common/work_feed.h"

namespace flashplus::sm90_backward_kv {

/// Where a role is in the rings.
struct Positions {
  gpu::Position keys, queries, item;
  gpu::Position written, read; ///< Of dS: the next tile's, and that of the next one that dQ wants.
  void fields(auto &&each) { each(keys, queries, item, written, read); }
};

/// One work item as all roles see it; they must agree on every field.
struct Item {
  Item(Ir &ir, EmitContext &c, const Sm90BackwardKVLayout &l, const WorkItem &item)
      : work(item), seq(ir, c.params, work.batch), mask(ir, c.params, c.spec, seq), first(work.m * l.tile_n),
        last(ir.min(first + l.tile_n, seq.k_len) - 1), present(first < seq.k_len),
        walk(mask.queries(first, last), l.tile_m, c.params.get("heads_q") / c.params.get("heads_k")),
        steps(ir.select(present, walk.steps, ir.i32(0))) {}

  WorkItem work;
  Sequence seq;
  Mask mask;
  Val first, last; ///< Keys of the tile.
  Val present;     ///< It has a key at all.
  QueryWalk walk;
  Val steps; ///< Tiles of queries that see it, of all heads.
};

/// Shared memory and its rings. A stage of queries is full when both its tiles and their rows' values are
/// there.
struct Rings {
  explicit Rings(EmitContext &c)
      : c(c), ir(c.ir), l(Sm90BackwardKVLayout::of(c.spec, c.schedule)),
        keys(c, l.keys(), Operand::K, Operand::V, 0, l.keysAt(), l.barriers()),
        queries(c, l.queries(), Operand::Q, Operand::DO, 2, l.queriesAt(), l.queryBarriers()),
        items(ir, l.kItemSlots, gpu::sharedAddress(ir, c.scratch) + l.itemBarriers(), c.scratch, l.items()),
        weights(ir, l.ds_stages, gpu::sharedAddress(ir, c.scratch) + l.weightsBarriers()),
        thread(gpu::threadId(ir)) {}

  Positions start() {
    return {keys.ring().start(), queries.ring().start(), items.ring().start(), weights.start(),
            weights.start()};
  }

  /// Pointer to the rows' values of a stage.
  Val rowValues(gpu::Position p) {
    return ir.offset(ir.offset(c.scratch, p.stage * l.rowValuesStage()), int64_t(l.rowValues()));
  }

  EmitContext &c;
  Ir &ir;
  const Sm90BackwardKVLayout l;
  PairRing keys, queries;
  ItemSlots items;
  gpu::Pipeline weights; ///< Tiles of dS. A warp arrives once it has written, or no longer reads.
  Val thread;
};

/// The copying thread's work: all items of the block.
void copyItems(Rings &rings, const WorkFeed &feed);
/// The second copying warp's: the rows' values of all items that arrive.
void copyRowValues(Rings &rings);
/// A math warpgroup's work: all items that arrive. `warp` is warp-uniform.
void computeItems(Rings &rings, Val warp);

} // namespace flashplus::sm90_backward_kv
