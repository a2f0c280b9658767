// SPDX-License-Identifier: BSD-3-Clause
// sm90.backward_q and its copying thread.
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "templates/backward/sm90_backward_q/kernel.h"

namespace flashplus {
namespace sm90_backward_q {
namespace {

struct Copying {
  Positions at;
  WorkFeed::Place next;
  void fields(auto &&each) { each(at, next); }
};

/// The first tile of keys before the queries: its stage is free while the last item's queries are in use.
Positions copyItem(Rings &r, const Item &item, Positions at) {
  auto copyKeys = [&](Val tile, gpu::Position keys) {
    r.keys.load(keys, item.seq, item.work.head_k, item.walk.key(tile), gpu::Keep::Last);
    return r.keys.next(keys);
  };
  const gpu::Position first = copyKeys(item.walk.first(), at.keys);
  r.queries.load(at.queries, item.seq, item.work.head, item.first, gpu::Keep::First);
  const gpu::Position end = item.walk.forOthers(
      r.ir, first, [&](Val tile, const gpu::Position &now) { return copyKeys(tile, now); });
  return {r.queries.next(at.queries), end, at.item};
}

} // namespace

void copyItems(Rings &rings, const WorkFeed &feed, Val m_tiles) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
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
            ir, item.has_keys, [&] { return copyItem(rings, item, at); }, [&] { return at; });
        return Copying{at, following};
      });
  Val none = ir.i32(0);
  rings.items.send(end.at.item, {none, none, none, none, none, {}, {}}, none);
  feed.reset();
}

} // namespace sm90_backward_q

void emitSm90BackwardQ(EmitContext &c) {
  sm90_backward_q::Rings rings(c);
  Ir &ir = c.ir;
  const WarpgroupShares shares = rings.l.shares();
  const int math_warps = 4 * shares.math;
  ir.ifThen(rings.thread == 0, [&] {
    for (int i = 0; i < 4; ++i)
      gpu::prefetchMap(ir, ir.offset(c.tensor_maps, int64_t(i) * kTensorMapBytes));
    for (gpu::Pipeline *ring : {&rings.queries.ring(), &rings.keys.ring(), &rings.items.ring()})
      ring->init(1, math_warps);
    gpu::fenceBarrierInit(ir);
  });
  gpu::barrier(ir);
  Val warp = gpu::uniformWarp(ir, rings.thread);
  ir.ifElse(
      warp >= math_warps,
      [&]() -> Vals {
        gpu::decreaseRegisters(ir, shares.copyRegisters());
        ir.ifThen(warp == math_warps, [&] {
          const WorkFeed feed(ir, c.params, c.spec, c.work_item);
          Val m_tiles = feed.usedTiles(rings.thread, rings.l.tile_m);
          ir.ifThen(gpu::electOne(ir), [&] { sm90_backward_q::copyItems(rings, feed, m_tiles); });
        });
        return {};
      },
      [&]() -> Vals {
        gpu::increaseRegisters(ir, shares.mathRegisters());
        sm90_backward_q::computeItems(rings, warp);
        return {};
      });
}

} // namespace flashplus
