// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/decode/ranges.h"

#include "ir/grid.h"
#include "ir/warp.h"

namespace flashplus::decode {
namespace {

/// A sequence, the tiles before it and its own.
struct Walk {
  Val batch, before, size;
  void fields(auto &&each) { each(batch, before, size); }
};

Val gridSize(Ir &ir) { return ir.wrap(mlir::NVVM::GridDimXOp::create(ir.builder, ir.loc, ir.i32())); }

} // namespace

Line::Line(EmitContext &c, const DecodeLayout &l) : c_(c), ir_(c.ir), l_(l) {}

SequenceTiles Line::tiles(const Sequence &sequence, const Mask &mask) const {
  SequenceTiles t;
  const Mask::Tiles keys = mask.tiles(ir_.i32(0), sequence.q_len - 1, l_.tile_n, {}, {});
  t.begin = keys.begin;
  t.count = ir_.max(ir_.i32(1), keys.end - keys.begin);
  // Divisions stand between a block and its first load; what is chosen has one tile of rows.
  Val most = c_.params.get("num_m_tiles");
  t.row_tiles = carry::ifElse(
      ir_, most == 1, [&] { return ir_.i32(1); },
      [&] {
        Val group = c_.params.get("heads_q") / c_.params.get("heads_k");
        return ir_.max(ir_.i32(1), ir_.min(most, ir_.ceilDiv(sequence.q_len * group, l_.tile_m)));
      });
  return t;
}

Val Line::weight(Val batch) const {
  const Sequence sequence(ir_, c_.params, batch, c_.spec.keys);
  const SequenceTiles t = tiles(sequence, Mask(ir_, c_.params, c_.spec, sequence));
  return t.count * t.row_tiles;
}

void Line::take(Val total) {
  Val grid = gridSize(ir_);
  share_ = ir_.max((total + grid - 1) / grid, ir_.i32(l_.least));
  start_.at = ir_.min(block() * share_, total);
  end_ = ir_.min(start_.at + share_, total);
}

void Line::find(Val lane) {
  Val batches = c_.params.get("batch"), heads = c_.params.get("heads_k");
  const Found found = carry::ifElse(
      ir_, sequenceLengthsDiffer(ir_, c_.params, c_.spec.keys),
      [&] {
        if (l_.overlaps())
          gpu::waitForGridBefore(ir_); // lengths may be what it wrote
        // A lane has a run of sequences; the lanes' sums, added up, say in whose run the range begins.
        Val run = ir_.ceilDiv(batches, 32), first = lane * run;
        Val own = carry::forLoop(ir_, ir_.min(first, batches), ir_.min(first + run, batches), ir_.i32(1),
                                 ir_.i32(0), [&](Val batch, Val so_far) { return so_far + weight(batch); });
        Val up_to = own;
        for (int distance = 1; distance < 32; distance *= 2) {
          Val below = gpu::shuffleUp(ir_, up_to, distance);
          up_to = ir_.select(lane >= distance, up_to + below, up_to);
        }
        Val of_head = gpu::shuffleFrom(ir_, up_to, ir_.i32(31));
        Line line = *this;
        line.take(of_head * heads);
        Val head = ir_.min(line.start_.at / of_head, heads - 1), before_head = head * of_head;
        Val at = line.start_.at - before_head;
        Val runs = ir_.select(up_to <= at, ir_.i32(1), ir_.i32(0)); // that end before it
        for (int lanes : {16, 8, 4, 2, 1})
          runs = runs + gpu::shuffleXor(ir_, runs, lanes);
        Val holder = ir_.min(runs, ir_.i32(31));
        Found f{of_head * heads, head, ir_.min(holder * run, batches - 1),
                gpu::shuffleFrom(ir_, up_to - own, holder)};
        // And in that run: one after the other.
        const Walk end = carry::whileLoop(
            ir_, Walk{f.batch, f.before, weight(f.batch)},
            [&](const Walk &w) { return (w.before + w.size <= at) & (w.batch + 1 < batches); },
            [&](const Walk &w) {
              return Walk{w.batch + 1, w.before + w.size, weight(w.batch + 1)};
            });
        return Found{f.total, head, end.batch, before_head + end.before};
      },
      [&] {
        Val size = weight(ir_.i32(0)), all = batches * heads;
        Line line = *this;
        line.take(size * all);
        Val number = ir_.min(line.start_.at / size, all - 1);
        Val head = carry::ifElse(
            ir_, batches == 1, [&] { return number; }, [&] { return number / batches; });
        return Found{size * all, head, number - head * batches, number * size};
      });
  take(found.total);
  start_.head = found.head;
  start_.batch = found.batch;
  start_.inside = start_.at - found.before;
}

Segment::Segment(EmitContext &c, const DecodeLayout &l, const Line &line, const Place &place)
    : sequence(c.ir, c.params, place.batch, c.spec.keys), mask(c.ir, c.params, c.spec, sequence) {
  Ir &ir = c.ir;
  const SequenceTiles t = line.tiles(sequence, mask);
  item.batch = place.batch;
  item.group = c.params.get("heads_q") / c.params.get("heads_k");
  item.head_k = place.head;
  item.m = carry::ifElse(
      ir, t.row_tiles == 1, [&] { return ir.i32(0); }, [&] { return place.inside / t.count; });
  Val tile = place.inside - item.m * t.count;
  item.head = item.head_k * item.group;
  item.split = ir.i32(0);
  Val first = item.m * l.tile_m;
  rows = ir.min(ir.i32(l.tile_m), sequence.q_len * item.group - first);
  first_row = first / item.group;
  last_row = (first + rows - 1) / item.group;

  Val taken = ir.min(t.count - tile, line.end() - place.at);
  // Of the sequence's tiles, those that this item's own rows see.
  const Mask::Tiles own = mask.tiles(first_row, last_row, l.tile_n, {}, {});
  Val from = t.begin + tile;
  begin = ir.max(from, own.begin);
  end = ir.select(rows > 0, ir.min(from + taken, own.end), begin);
  first_key = c.spec.bounded_left ? mask.lo(first_row) : ir.i32(0);
  end_key = mask.hi(last_row);

  Val item_at = place.at - tile;
  first_block = item_at / line.share();
  blocks = (item_at + t.count - 1) / line.share() - first_block + 1;

  Val inside = place.inside + taken, done = inside == t.count * t.row_tiles;
  Val batch = ir.select(done, place.batch + 1, place.batch), head_done = batch == c.params.get("batch");
  next_ = {place.at + taken,
           ir.select(head_done, ir.min(place.head + 1, c.params.get("heads_k") - 1), place.head),
           ir.select(head_done, ir.i32(0), batch), ir.select(done, ir.i32(0), inside)};
}

} // namespace flashplus::decode
