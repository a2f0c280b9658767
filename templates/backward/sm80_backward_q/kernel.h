// SPDX-License-Identifier: BSD-3-Clause
// What the halves of sm80.backward_q have in common: one thread's view of its work item.
#pragma once

#include "ir/warp.h"
#include "templates/backward/sm80_backward_q/layout.h"
#include "templates/common/fragment.h"
#include "templates/common/key_walk.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

namespace flashplus::sm80_backward_q {

struct ItemView {
  explicit ItemView(EmitContext &c)
      : c(c), ir(c.ir), l(Sm80BackwardQLayout::of(c.spec, c.schedule)), dtype(c.spec.dtype),
        bytes(dtypeBytes(dtype)), item(decodeWorkItem(ir, c.params, c.spec, c.work_item)),
        seq(ir, c.params, item.batch),
        mask(ir, c.params, c.spec, seq), s_layout{l.m_frags, l.tile_n / 8}, dq_layout{l.m_frags,
                                                                                      l.dqk_pad / 8} {}

  /// Takes `t` for the thread's number, and what follows from it.
  void setThread(Val t) {
    thread = t;
    lane = thread % 32;
    warp_row = thread / 32 * (16 * l.m_frags);
  }

  /// Pointer `bytes` (i32) and `base` bytes into shared memory.
  Val shared(int64_t base, Val at) { return ir.offset(ir.offset(c.scratch, at), base); }

  EmitContext &c;
  Ir &ir;
  const Sm80BackwardQLayout l;
  const DType dtype;
  const int bytes; ///< Of an element.
  WorkItem item;
  Sequence seq;
  Mask mask;
  const FragmentLayout s_layout, dq_layout; ///< Of a warp's weights and sums.
  Val first, last;                          ///< Query rows of the tile.
  Val thread, lane;
  Val warp_row; ///< The warp's first row in the tile.
};

} // namespace flashplus::sm80_backward_q
