// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/page_boxes.h"

#include "ir/carried.h"

namespace flashplus {

PageBoxes::PageBoxes(Ir &ir, const Sequence &sequence, int tile_rows, Val least)
    : ir_(ir), sequence_(sequence), page_size_(sequence.params().get("page_size")), least_(least) {
  // leftpad_k with pages that cut is not planned for such kernels.
  Val cuts = sequence.params().get("seqlen_k") > page_size_;
  Val power = page_size_ & (ir.i32(0) - page_size_);
  rows_ = ir.select(cuts, ir.min(power, ir.i32(tile_rows & -tile_rows)), ir.i32(tile_rows));
}

Val PageBoxes::isSeen(Val key) const {
  Val seen = key < sequence_.k_len;
  return least_ ? seen & (key + rows_ > least_) : seen;
}

Val PageBoxes::page(Val key, Val entry) const {
  return carry::ifElse(
      ir_, isSeen(key), [&] { return sequence_.page(ir_.toI64(entry)); }, [&] { return ir_.i32(-1); });
}

PageBoxes::Box PageBoxes::first(Val key) const {
  Val slot = sequence_.slot(key), entry = ir_.toI32(sequence_.entry(slot));
  return {key, entry, slot - entry * page_size_, page(key, entry)};
}

PageBoxes::Box PageBoxes::next(const Box &box) const {
  Val key = box.key + rows_, slot = box.slot + rows_, ends = slot >= page_size_;
  Val entry = ir_.select(ends, box.entry + 1, box.entry);
  return {key, entry, ir_.select(ends, ir_.i32(0), slot), page(key, entry)};
}

Vals PageBoxes::at(Val column, Val head, const Box &box) const {
  return {column, box.slot, head, box.page};
}

} // namespace flashplus
