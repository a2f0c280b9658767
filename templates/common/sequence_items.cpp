// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/sequence_items.h"

#include "ir/carried.h"
#include "ir/warp.h"
#include "templates/common/sequence.h"

namespace flashplus {
namespace {

/// Number of the highest bit of an i32; -1 if there is none.
Val highestBit(Ir &ir, Val value) {
  Val zeros = ir.wrap(mlir::LLVM::CountLeadingZerosOp::create(ir.builder, ir.loc, ir.i32(), value.value,
                                                              /*is_zero_poison=*/false));
  return ir.i32(31) - zeros;
}

/// `bit`: 0 to 31.
Val oneBit(Ir &ir, Val bit) {
  return ir.wrap(mlir::arith::ShLIOp::create(ir.builder, ir.loc, ir.i32(1).value, bit.value));
}

} // namespace

SequenceItems::SequenceItems(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val lane, int tile_m)
    : ir_(ir), params_(params), spec_(spec), lane_(lane), tile_m_(tile_m),
      differ_(sequenceLengthsDiffer(ir, params, spec.keys)) {
  Val none = ir.i32(0);
  classes_ = carry::ifElse(
      ir, differ_,
      [&] {
        Val all = carry::forLoop(ir, lane_, params.get("batch"), ir_.i32(32), none,
                                 [&](Val batch, Val so_far) {
                                   const Lengths l = lengths(batch);
                                   return so_far | ir_.select(l.tiles > 0, oneBit(ir_, l.power), none);
                                 });
        for (int lanes : {16, 8, 4, 2, 1})
          all = all | gpu::shuffleXor(ir_, all, lanes);
        return all;
      },
      [&] { return none; });
}

SequenceItems::Lengths SequenceItems::lengths(Val batch) const {
  const Sequence sequence(ir_, params_, batch, spec_.keys);
  return {ir_.min(params_.get("num_m_tiles"), ir_.ceilDiv(sequence.q_len, tile_m_)),
          highestBit(ir_, ir_.max(sequence.k_len, ir_.i32(1)))};
}

SequenceItems::Cursor SequenceItems::start() const {
  Val none = ir_.i32(0);
  return carry::ifElse(
      ir_, differ_, [&] { return at(classes_, none, none); },
      [&] {
        return Cursor{none, none, none, none};
      });
}

SequenceItems::Cursor SequenceItems::at(Val classes, Val first, Val before) const {
  Val batch = first + lane_, none = ir_.i32(0);
  Val up_to = carry::ifElse(
      ir_, batch < params_.get("batch"),
      [&] {
        const Lengths l = lengths(batch);
        return ir_.select(l.power == highestBit(ir_, classes), l.tiles, none);
      },
      [&] { return none; });
  for (int distance = 1; distance < 32; distance *= 2) {
    Val below = gpu::shuffleUp(ir_, up_to, distance);
    up_to = ir_.select(lane_ >= distance, up_to + below, up_to);
  }
  return {classes, first, before, up_to};
}

SequenceItems::Found SequenceItems::find(const Cursor &cursor, Val item) const {
  return carry::ifElse(
      ir_, differ_,
      [&] {
        Val of_tile = itemsOfTile(params_, spec_), none = ir_.i32(0);
        auto end = [&](const Cursor &now) {
          return now.before + gpu::shuffleFrom(ir_, now.up_to, ir_.i32(31));
        };
        const Cursor there = carry::whileLoop(
            ir_, cursor, [&](const Cursor &now) { return (item >= end(now) * of_tile) & (now.classes != 0); },
            [&](const Cursor &now) {
              Val first = now.first + 32, done = first >= params_.get("batch");
              Val less = now.classes ^ oneBit(ir_, highestBit(ir_, now.classes));
              return at(ir_.select(done, less, now.classes), ir_.select(done, none, first), end(now));
            });
        Val inside = item - there.before * of_tile;
        Val holder = gpu::countLanes(ir_, there.up_to * of_tile <= inside);
        Val below = ir_.select(holder == 0, none, gpu::shuffleFrom(ir_, there.up_to, holder - 1));
        // Past the line's end there are none; it is divided by them, and by the heads of the item's section.
        Val tiles = ir_.max(gpu::shuffleFrom(ir_, there.up_to, holder) - below, ir_.i32(1));
        const WorkItem work = decodeSequenceItem(ir_, params_, spec_, there.first + holder, tiles,
                                                 ir_.min(inside - below * of_tile, of_tile * tiles - 1));
        return Found{work, there, there.classes != 0};
      },
      [&] {
        Val items = params_.get("num_work_items");
        return Found{decodeWorkItem(ir_, params_, spec_, ir_.min(item, items - 1)), cursor, item < items};
      });
}

} // namespace flashplus
