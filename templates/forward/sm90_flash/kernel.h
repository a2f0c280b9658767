// SPDX-License-Identifier: BSD-3-Clause
// What the two roles of sm90.flash, copying and arithmetic, have in common.
#pragma once

#include "ir/mbarrier.h"
#include "ir/warp.h"
#include "templates/common/key_walk.h"
#include "templates/common/sequence.h"
#include "templates/common/work_feed.h"
#include "templates/emit.h"
#include "templates/forward/sm90_flash/layout.h"

namespace flashplus::sm90_flash {

/// Where a role is in the rings.
struct Positions {
  gpu::Position q, k, v, item;
  void fields(auto &&each) { each(q, k, v, item); }
};

/// One work item as both roles see it; they must agree on every field.
struct Item {
  Item(Ir &ir, EmitContext &c, const Sm90FlashLayout &l, const WorkItem &item)
      : work(item), seq(ir, c.params, work.batch, c.spec.keys), mask(ir, c.params, c.spec, seq),
        first(work.m * l.tile_m), last(ir.min(first + l.tile_m, seq.q_len) - 1),
        present(first < seq.q_len), walk{mask.tiles(first, last, l.tile_n, work.split,
                                                    c.spec.sharesKeys() ? c.params.get("num_splits") : Val{}),
                                         l.tile_n},
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
      : c(c), ir(c.ir), l(Sm90FlashLayout::of(c.spec, c.schedule)), base(gpu::sharedAddress(ir, c.scratch)),
        q(ir, l.q_stages, base + l.barriers()), k(ir, l.stages, base + (l.barriers() + 16 * l.q_stages)),
        v(ir, l.stages, base + (l.barriers() + 16 * (l.q_stages + l.stages))),
        items(ir, l.kItemSlots, base + (l.barriers() + 16 * (l.q_stages + 2 * l.stages)), c.scratch,
              l.items()),
        thread(gpu::threadId(ir)) {}

  Positions start() { return {q.start(), k.start(), v.start(), items.ring().start()}; }

  Val qTile(gpu::Position p) { return base + p.stage * l.qBytes() + l.q(); }
  Val kTile(gpu::Position p) { return base + p.stage * l.kBytes() + l.k(); }
  Val vTile(gpu::Position p) { return base + p.stage * l.vBytes() + l.v(); }

  EmitContext &c;
  Ir &ir;
  const Sm90FlashLayout l;
  Val base; ///< Of shared memory, as its instructions address it.
  gpu::Pipeline q, k, v;
  ItemSlots items;
  Val thread;
};

/// The copying thread's work: all items of the block. `m_tiles`: of the longest sequence.
void copyItems(Rings &rings, const WorkFeed &feed, Val m_tiles);
/// The same by lengths, of the copying warp: it finds items together, and one of its threads copies.
void copyItemsByLengths(Rings &rings, const WorkFeed &feed);

/// A math warpgroup's work: all items that arrive. `warp` is warp-uniform.
void computeItems(Rings &rings, Val warp);

} // namespace flashplus::sm90_flash
