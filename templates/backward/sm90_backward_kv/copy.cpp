// SPDX-License-Identifier: BSD-3-Clause
// The copying warps of sm90.backward_kv.
#include "templates/backward/rows/row_values.h"
#include "templates/backward/sm90_backward_kv/kernel.h"
#include "templates/backward/sm90_pair/roles.h"
#include "templates/common/result_rows.h"

namespace flashplus::sm90_backward_kv {
namespace {

struct Copying {
  Positions at;
  WorkFeed::Place next;
  void fields(auto &&each) { each(at, next); }
};

struct Step {
  QueryWalk::Place place;
  gpu::Position queries;
  void fields(auto &&each) { each(place, queries); }
};

/// The first tile of queries before the keys: its stage is free while the last item's keys are in use.
Positions copyItem(Rings &r, const Item &item, Positions at) {
  auto copyQueries = [&](const Step &step) {
    r.queries.load(step.queries, item.seq, item.work.head + step.place.head, item.walk.query(step.place),
                   gpu::Keep::Last);
    return Step{item.walk.next(step.place), r.queries.next(step.queries)};
  };
  const Step first = copyQueries({item.walk.first(), at.queries});
  r.keys.load(at.keys, item.seq, item.work.head_k, item.first, gpu::Keep::First);
  const Step end = carry::forLoop(r.ir, r.ir.i32(1), item.steps, r.ir.i32(1), first,
                                  [&](Val, const Step &now) { return copyQueries(now); });
  at.keys = r.keys.next(at.keys);
  at.queries = end.queries;
  return at;
}

} // namespace

void copyItems(Rings &rings, const WorkFeed &feed) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
  Val total = c.params.get("num_work_items");
  const Copying start{rings.start(), feed.first()};
  const Copying end = carry::whileLoop(
      ir, start, [&](const Copying &now) { return now.next.item < total; },
      [&](const Copying &now) {
        Positions at = now.at;
        const WorkFeed::Place following = feed.next(now.next); // asked for early, needed late
        const WorkItem work = decodeWorkItem(ir, c.params, c.spec, now.next.item, HeadsOfItem::Keys);
        rings.items.send(at.item, work, ir.i32(1));
        at.item = rings.items.ring().next(at.item);
        const Item item(ir, c, rings.l, work);
        at = carry::ifElse(
            ir, item.steps > 0, [&] { return copyItem(rings, item, at); }, [&] { return at; });
        // The backward's pairs of tiles: backward_q does not count them again.
        countTiles(ir, c.params, [&] { return item.steps; });
        return Copying{at, following};
      });
  Val none = ir.i32(0);
  rings.items.send(end.at.item, {none, none, none, none, none, {}, {}}, none);
  feed.reset();
}

namespace {

/// Rows past the last one repeat its values: their weights are masked.
gpu::Position copyValues(Rings &r, const Item &item, Val lane, gpu::Position at) {
  Ir &ir = r.ir;
  const int tile_m = r.l.tile_m;
  return carry::forLoop(ir, ir.i32(0), item.steps, ir.i32(1), Step{item.walk.first(), at},
                        [&](Val, const Step &step) {
                          const RowValues values(ir, r.c.params, item.seq, item.work.head + step.place.head);
                          Val query = item.walk.query(step.place), lse = values.lse(), delta = values.delta();
                          Vals loaded; // before the stage is free
                          for (int i = 0; i < 2 * tile_m; i += 32) {
                            Val index = lane + i, row = ir.min(query + index % tile_m, item.seq.q_len - 1);
                            Val from = i + 32 <= tile_m ? lse
                                       : i >= tile_m    ? delta
                                                        : ir.select(index < tile_m, lse, delta);
                            loaded.push_back(ir.load(ir.f32(), ir.offset(from, ir.toI64(row) * 4), 4));
                          }
                          r.queries.ring().waitEmpty(step.queries);
                          Val to = ir.offset(r.rowValues(step.queries), lane * 4);
                          for (auto [i, value] : llvm::enumerate(loaded))
                            ir.store(value, ir.offset(to, int64_t(i) * 128), 4);
                          gpu::warpSync(ir); // every lane has stored
                          gpu::arrive(ir, r.queries.ring().full(step.queries), lane == 0);
                          return Step{item.walk.next(step.place), r.queries.next(step.queries)};
                        })
      .queries;
}

} // namespace

void copyRowValues(Rings &rings) {
  Val lane = rings.thread % 32;
  forReceivedItems(rings.ir, rings.items, rings.start(), lane, [&](const WorkItem &work, Positions at) {
    at.queries = copyValues(rings, Item(rings.ir, rings.c, rings.l, work), lane, at.queries);
    return at;
  });
}

} // namespace flashplus::sm90_backward_kv
