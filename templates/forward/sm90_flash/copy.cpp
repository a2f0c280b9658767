// SPDX-License-Identifier: BSD-3-Clause
// The copying thread of sm90.flash.
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "templates/common/key_rows.h"
#include "templates/common/page_boxes.h"
#include "templates/common/result_rows.h"
#include "templates/common/sequence_items.h"
#include "templates/forward/sm90_flash/kernel.h"

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

/// One operand's way into its ring.
struct TileCopy {
  Operand operand;
  int map; ///< Of the launch's tensor maps.
  int slabs, rows;
  gpu::Keep keep;
};

class Copy {
public:
  explicit Copy(Rings &rings)
      : r_(rings), ir_(rings.ir), l_(rings.l), q_{Operand::Q, 0, l_.qkSlabs(), l_.tile_m, gpu::Keep::First},
        k_{Operand::K, 1, l_.qkSlabs(), l_.tile_n, gpu::Keep::Last}, v_{Operand::V, 2, l_.vSlabs(), l_.tile_n,
                                                                        gpu::Keep::Last} {}

  /// K of the first tile, Q, then each next K before the V that its predecessor waits for; but not the last
  /// V.
  void begin(const Item &item, Positions at) {
    const KeyWalk &walk = item.walk;
    copyK(item, walk.first(), at);
    copyTile(q_, r_.q, at.q, r_.qTile(at.q), item, item.first, item.work.head);
    at.k = r_.k.next(at.k);
    walk.forOthers(ir_, at, [&](Val tile, const Positions &now) {
      copyK(item, tile, now);
      copyV(item, walk.previous(tile), now);
      return Positions{now.q, r_.k.next(now.k), r_.v.next(now.v), now.item};
    });
  }
  /// That one.
  void end(const Item &item, Positions at) {
    at.v = r_.v.advance(at.v, item.walk.tiles.count() - 1);
    copyV(item, item.walk.last(), at);
  }

private:
  void copyK(const Item &item, Val tile, const Positions &at) {
    copyTile(k_, r_.k, at.k, r_.kTile(at.k), item, item.walk.key(tile), item.work.head_k);
  }
  void copyV(const Item &item, Val tile, const Positions &at) {
    copyTile(v_, r_.v, at.v, r_.vTile(at.v), item, item.walk.key(tile), item.work.head_k);
  }

  /// Rows of `head` from `row` on, into `tile`.
  void copyTile(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item, Val row,
                Val head) {
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
  void copyPages(const TileCopy &t, gpu::Pipeline &ring, gpu::Position at, Val tile, const Item &item,
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

  Val map(const TileCopy &t) { return ir_.offset(r_.c.tensor_maps, int64_t(t.map) * kTensorMapBytes); }

  Rings &r_;
  Ir &ir_;
  const Sm90FlashLayout &l_;
  const TileCopy q_, k_, v_;
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
  ir.ifThen(gpu::electOne(ir) & item.has_keys, [&] { copy.end(item, at); });
  Val tiles = ir.select(item.has_keys, item.walk.tiles.count(), ir.i32(0));
  countTiles(ir, c.params, [&] { return tiles; }, [&](Val counting) { return counting & (lane == 0); });
  const gpu::Position q = rings.q.next(at.q);
  return {ir.select(item.has_keys, Copying::packed(q), Copying::packed(at.q)),
          Copying::packed(rings.k.advance(at.k, tiles)),
          Copying::packed(rings.items.ring().next(at.item)),
          feed.after(place(), asked),
          ir.boolean(true)};
}

} // namespace

void copyItems(Rings &rings, const WorkFeed &feed) {
  EmitContext &c = rings.c;
  Ir &ir = rings.ir;
  Copy copy(rings);
  Val lane = rings.thread % 32;
  const SequenceItems items(ir, c.params, c.spec, lane, rings.l.tile_m);
  Val kept = ir.offset(ir.offset(c.scratch, lane * 24), int64_t(rings.l.cursor()));
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
