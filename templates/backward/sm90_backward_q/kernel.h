// SPDX-License-Identifier: BSD-3-Clause
// What the two roles of sm90.backward_q, copying and arithmetic, have in common.
#pragma once

#include "ir/warp.h"
#include "templates/backward/sm90_backward_q/layout.h"
#include "templates/backward/sm90_pair/pair_ring.h"
#include "templates/common/key_walk.h"
#include "templates/common/work_feed.h"

namespace flashplus::sm90_backward_q {

/// Where a role is in the rings.
struct Positions {
  gpu::Position queries, keys, item;
  void fields(auto &&each) { each(queries, keys, item); }
};

/// One work item as both roles see it; they must agree on every field.
struct Item {
  Item(Ir &ir, EmitContext &c, const Sm90BackwardQLayout &l, const WorkItem &item)
      : work(item), seq(ir, c.params, work.batch), mask(ir, c.params, c.spec, seq), first(work.m * l.tile_m),
        last(ir.min(first + l.tile_m, seq.q_len) - 1),
        present(first < seq.q_len), walk{mask.tiles(first, last, l.tile_n, work.split, {}), l.tile_n},
        has_keys(present & (walk.tiles.begin < walk.tiles.end)) {}

  WorkItem work;
  Sequence seq;
  Mask mask;
  Val first, last; ///< Query rows of the tile.
  Val present;     ///< It has a query row at all.
  KeyWalk walk;
  Val has_keys;
};

/// Shared memory and its rings.
struct Rings {
  explicit Rings(EmitContext &c)
      : c(c), ir(c.ir), l(Sm90BackwardQLayout::of(c.spec, c.schedule)),
        queries(c, l.queries(), Operand::Q, Operand::DO, 0, l.queriesAt(), l.barriers()),
        keys(c, l.keys(), Operand::K, Operand::V, 2, l.keysAt(), l.keyBarriers()),
        items(ir, l.kItemSlots, gpu::sharedAddress(ir, c.scratch) + l.itemBarriers(), c.scratch, l.items()),
        thread(gpu::threadId(ir)) {}

  Positions start() { return {queries.ring().start(), keys.ring().start(), items.ring().start()}; }

  EmitContext &c;
  Ir &ir;
  const Sm90BackwardQLayout l;
  PairRing queries, keys;
  ItemSlots items;
  Val thread;
};

/// The copying thread's work: all items of the block. `m_tiles`: of the longest sequence.
void copyItems(Rings &rings, const WorkFeed &feed, Val m_tiles);
/// A math warpgroup's work: all items that arrive. `warp` is warp-uniform.
void computeItems(Rings &rings, Val warp);

} // namespace flashplus::sm90_backward_q
