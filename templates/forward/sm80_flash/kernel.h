// SPDX-License-Identifier: BSD-3-Clause
// What the halves of sm80.flash, copying, arithmetic and storing, have in common: one thread's view of its
// work item.
#pragma once

#include "ir/warp.h"
#include "templates/common/fragment.h"
#include "templates/common/key_walk.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"
#include "templates/forward/sm80_flash/layout.h"

namespace flashplus::sm80_flash {

struct ItemView {
  explicit ItemView(EmitContext &c)
      : c(c), ir(c.ir), l(Sm80FlashLayout::of(c.spec, c.schedule)), dtype(c.spec.dtype),
        bytes(dtypeBytes(dtype)), item(decodeWorkItem(ir, c.params, c.spec, c.work_item)),
        seq(ir, c.params, item.batch, c.spec.keys),
        mask(ir, c.params, c.spec, seq), s_layout{l.m_frags, l.tile_n / 8}, o_layout{l.m_frags,
                                                                                     l.dv_pad / 8} {}

  int rows() const { return s_layout.count(Axis::Rows); } ///< Query rows of a thread.

  /// Takes `t` for the thread's number, and what follows from it.
  void setThread(Val t) {
    thread = t;
    lane = thread % 32;
    warp_row = (thread / 32) * (16 * l.m_frags);
  }

  /// Pointer `bytes` (i32) and `base` bytes into shared memory.
  Val shared(int64_t base, Val at) { return ir.offset(ir.offset(c.scratch, at), base); }

  EmitContext &c;
  Ir &ir;
  const Sm80FlashLayout l;
  const DType dtype;
  const int bytes; ///< Of an element.
  WorkItem item;
  Sequence seq;
  Mask mask;
  const FragmentLayout s_layout, o_layout; ///< Of a warp's scores and output.
  Val first, last;                         ///< Query rows of the tile.
  Val thread, lane;
  Val warp_row; ///< The warp's first row in the tile.
};

} // namespace flashplus::sm80_flash
