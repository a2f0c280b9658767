// SPDX-License-Identifier: BSD-3-Clause
// The copying warp of sm90.flash where items are those of the sequences' lengths.
#include "ir/warp.h"
#include "ir/warpgroup.h"
#include "templates/common/result_rows.h"
#include "templates/common/sequence_items.h"
#include "templates/forward/sm90_flash/copy.h"

namespace flashplus::sm90_flash {
namespace {

/// Between two items. The copying warp has few registers: a position is one, and K's is V's, too.
struct Copying {
  Val q, k, item;
  WorkFeed::Place next;
  Val more; ///< i1
  void fields(auto &&each) { each(q, k, item, next, more); }

  static Val packed(const gpu::Position &p) { return p.stage * 2 + p.phase; }
  Positions at() const {
    auto unpacked = [](Val p) { return gpu::Position{p / 2, p & literal(p, int64_t{1})}; };
    return {unpacked(q), unpacked(k), unpacked(k), unpacked(item)};
  }
};

/// One item; what comes after it.
Copying copyItem(Rings &rings, Copy &copy, const WorkFeed &feed, const WorkItem &work, const Positions &at,
                 llvm::function_ref<WorkFeed::Place()> place) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
  Val lane = rings.thread % 32;
  const Item item(ir, c, rings.l, work);
  ir.ifThen(gpu::electOne(ir), [&] {
    rings.items.send(at.item, work, ir.i32(1));
    ir.ifThen(item.has_keys, [&] { copy.begin(item, at); });
  });
  // Math has about as many tiles to do as there are stages: time enough to find the next item.
  Val asked = feed.ask(lane);
  ir.ifThen(gpu::electOne(ir) & item.has_keys, [&] {
    Positions last = at;
    last.v = rings.v.advance(at.v, item.walk.tiles.count() - 1);
    copy.end(item, last);
  });
  Val tiles = ir.select(item.has_keys, item.walk.tiles.count(), ir.i32(0));
  countTiles(
      ir, c.params, [&] { return tiles; }, [&](Val counting) { return counting & (lane == 0); });
  const gpu::Position q = rings.q.next(at.q);
  return {ir.select(item.has_keys, Copying::packed(q), Copying::packed(at.q)),
          Copying::packed(rings.k.advance(at.k, tiles)), Copying::packed(rings.items.ring().next(at.item)),
          feed.after(place(), asked), ir.boolean(true)};
}

} // namespace

void copyItemsByLengths(Rings &rings, const WorkFeed &feed) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
  Copy copy(rings);
  Val lane = rings.thread % 32;
  const SequenceItems items(ir, c.params, c.spec, lane, rings.l.tile_m);
  Val kept = ir.offset(ir.offset(c.scratch, lane * Sm90FlashLayout::kCursorBytes), int64_t(rings.l.cursor()));
  auto store = [&](auto values, int64_t at) {
    values.fields([&](auto &...value) { (ir.store(value, ir.offset(kept, 4 * at++), 4), ...); });
  };
  auto load = [&](auto values, int64_t at) {
    values.fields([&](auto &...value) { ((value = ir.load(ir.i32(), ir.offset(kept, 4 * at++), 4)), ...); });
    return values;
  };
  store(items.start(), 0);
  Val zero = ir.i32(0);
  const Copying start{zero, zero, zero, feed.first(), ir.boolean(true)};
  const Copying end = carry::whileLoop(
      ir, start, [&](const Copying &now) { return now.more; },
      [&](const Copying &now) {
        const auto found = items.find(load(SequenceItems::Cursor{}, 0), now.next.item);
        store(found.cursor, 0);
        store(now.next, 4);
        return carry::ifElse(
            ir, found.present,
            [&] {
              return copyItem(rings, copy, feed, found.item, now.at(),
                              [&] { return load(WorkFeed::Place{}, 4); });
            },
            [&] {
              Copying none = now;
              none.more = ir.boolean(false);
              return none;
            });
      });
  ir.ifThen(gpu::electOne(ir), [&] {
    Val none = ir.i32(0);
    rings.items.send(end.at().item, {none, none, none, none, none, {}, {}}, none);
    feed.reset();
  });
}

} // namespace flashplus::sm90_flash
