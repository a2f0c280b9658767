// SPDX-License-Identifier: BSD-3-Clause
// What the halves of sm80.backward_kv have in common: one thread's view of its work item.
#pragma once

#include "ir/warp.h"
#include "templates/backward/query_walk.h"
#include "templates/backward/sm80_backward_kv/layout.h"
#include "templates/common/fragment.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

namespace flashplus::sm80_backward_kv {

struct ItemView {
  explicit ItemView(EmitContext &c)
      : c(c), ir(c.ir), l(Sm80BackwardKVLayout::of(c.spec, c.schedule)), dtype(c.spec.dtype),
        bytes(dtypeBytes(dtype)), item(decodeWorkItem(ir, c.params, c.spec, c.work_item, HeadsOfItem::Keys)),
        seq(ir, c.params, item.batch), mask(ir, c.params, c.spec, seq), s_layout{l.n_frags, l.partM() / 8},
        dk_layout{l.n_frags, l.dqk_pad / l.parts / 8}, dv_layout{l.n_frags, l.dv_pad / l.parts / 8} {}

  /// Takes `t` for the thread's number, and what follows from it.
  void setThread(Val t) {
    thread = t;
    lane = thread % 32;
    warp_key = thread / (32 * l.parts) * (16 * l.n_frags);
    part = thread / 32 % l.parts;
  }

  /// Pointer `bytes` (i32) and `base` bytes into shared memory.
  Val shared(int64_t base, Val at) { return ir.offset(ir.offset(c.scratch, at), base); }

  EmitContext &c;
  Ir &ir;
  const Sm80BackwardKVLayout l;
  const DType dtype;
  const int bytes; ///< Of an element.
  WorkItem item;
  Sequence seq;
  Mask mask;
  const FragmentLayout s_layout, dk_layout, dv_layout; ///< Of a warp's weights, keys in rows, and sums.
  Val first, last;                                     ///< Keys of the tile.
  Val thread, lane;
  Val warp_key; ///< The warp's first key in the tile.
  Val part;     ///< Which one of those with its keys it is.
};

/// What is summed over the queries.
struct Sums {
  Fragment dk, dv;
  void fields(auto &&each) { each(dk, dv); }
  static Sums start(ItemView &k) {
    return {Fragment::filled(k.dk_layout, k.ir.f32(0)), Fragment::filled(k.dv_layout, k.ir.f32(0))};
  }
};

} // namespace flashplus::sm80_backward_kv
