// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm90_flash/copy.h"

#include "templates/common/key_rows.h"
#include "templates/common/page_boxes.h"
#include "templates/common/result_rows.h"

namespace flashplus::sm90_flash {

Copy::Copy(Rings &rings)
    : r_(rings), ir_(rings.ir), l_(rings.l), q_{Operand::Q, 0, l_.qkSlabs(), l_.tile_m, gpu::Keep::First},
      k_{Operand::K, 1, l_.qkSlabs(), l_.tile_n, gpu::Keep::Last}, v_{Operand::V, 2, l_.vSlabs(), l_.tile_n,
                                                                      gpu::Keep::Last} {}

Positions Copy::begin(const Item &item, Positions at) {
  const KeyWalk &walk = item.walk;
  copyK(item, walk.first(), at);
  copyTile(q_, r_.q, at.q, r_.qTile(at.q), item, item.first, item.work.head);
  at.q = r_.q.next(at.q);
  return walk.forOthers(ir_, at, [&](Val tile, Positions now) {
    copyK(item, tile, now);
    copyV(item, walk.previous(tile), now);
    return now;
  });
}

Positions Copy::end(const Item &item, Positions at) {
  copyV(item, item.walk.last(), at);
  return at;
}

void Copy::copyK(const Item &item, Val tile, Positions &at) {
  copyTile(k_, r_.k, at.k, r_.kTile(at.k), item, item.walk.key(tile), item.work.head_k);
  at.k = r_.k.next(at.k);
}

void Copy::copyV(const Item &item, Val tile, Positions &at) {
  copyTile(v_, r_.v, at.v, r_.vTile(at.v), item, item.walk.key(tile), item.work.head_k);
  at.v = r_.v.next(at.v);
}

/// Rows of `head` from `row` on, into `tile`.
void Copy::copyTile(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item,
                    Val row, Val head) {
  const KeyRows rows{item.seq, t.operand, head};
  if (rows.paged())
    return copyPages(t, ring, at, tile, item, row, head);
  const KeyRows::Boxes boxes = rows.boxes();
  ring.waitEmpty(at);
  gpu::arriveExpect(ir_, ring.full(at), t.slabs * t.rows * 128);
  for (int slab = 0; slab < t.slabs; ++slab)
    gpu::loadBox(ir_, tile + slab * t.rows * 128, map(t), boxes.at(ir_.i32(64 * slab), row), ring.full(at),
                 t.keep);
}

/// The same of keys in pages. A page's number is asked for while the box before is on its way, the first
/// one's while the stage is still in use.
void Copy::copyPages(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item,
                     Val key, Val head) {
  const PageBoxes boxes(ir_, item.seq, t.rows, item.mask.leastKey(item.first));
  const PageBoxes::Box first = boxes.first(key);
  ring.waitEmpty(at);
  gpu::arriveExpect(ir_, ring.full(at), t.slabs * t.rows * 128);
  carry::forLoop(ir_, ir_.i32(0), ir_.i32(t.rows), boxes.rows(), first,
                 [&](Val row, const PageBoxes::Box &box) {
                   const PageBoxes::Box following = boxes.next(box);
                   for (int slab = 0; slab < t.slabs; ++slab)
                     gpu::loadBox(ir_, tile + row * 128 + slab * t.rows * 128, map(t),
                                  boxes.at(ir_.i32(64 * slab), head, box), ring.full(at), t.keep);
                   return following;
                 });
}

Val Copy::map(const TileCopy &t) { return ir_.offset(r_.c.tensor_maps, int64_t(t.map) * kTensorMapBytes); }

namespace {

struct Copying {
  Positions at;
  WorkFeed::Place next;
  void fields(auto &&each) { each(at, next); }
};

} // namespace

void copyItems(Rings &rings, const WorkFeed &feed, Val m_tiles) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
  Copy copy(rings);
  Val total = feed.total(m_tiles);
  const Copying start{rings.start(), feed.first()};
  const Copying end = carry::whileLoop(
      ir, start, [&](const Copying &now) { return now.next.item < total; },
      [&](const Copying &now) {
        Positions at = now.at;
        const WorkFeed::Place following = feed.next(now.next); // asked for early, needed late
        const WorkItem work = decodeWorkItem(ir, c.params, c.spec, now.next.item, HeadsOfItem::One, m_tiles);
        rings.items.send(at.item, work, ir.i32(1));
        at.item = rings.items.ring().next(at.item);
        const Item item(ir, c, rings.l, work);
        at = carry::ifElse(
            ir, item.has_keys, [&] { return copy.end(item, copy.begin(item, at)); }, [&] { return at; });
        countTiles(
            ir, c.params, [&] { return item.walk.tiles.end - item.walk.tiles.begin; },
            [&](Val counting) { return item.has_keys & counting; });
        return Copying{at, following};
      });
  Val none = ir.i32(0);
  rings.items.send(end.at.item, {none, none, none, none, none, {}, {}}, none);
  feed.reset();
}

} // namespace flashplus::sm90_flash
