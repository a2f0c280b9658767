// SPDX-License-Identifier: BSD-3-Clause
// What the parts of sm80.decode have in common: one thread's view of its block.
#pragma once

#include "ir/warp.h"
#include "templates/common/fragment.h"
#include "templates/emit.h"
#include "templates/forward/decode/layout.h"
#include "templates/forward/decode/ranges.h"

namespace flashplus::decode {

struct KernelView {
  explicit KernelView(EmitContext &c);

  /// Pointer `at` (i32) and `base` bytes into shared memory.
  Val shared(int64_t base, Val at) const { return ir.offset(ir.offset(c.scratch, at), base); }
  Val shared(int64_t base) const { return ir.offset(c.scratch, base); }

  /// Packed row `row` of an item (i32, cut to those it has), as a query row and a head of the group.
  struct Packed {
    Val query, head;
  };
  Packed packed(const Segment &segment, Val row) const;

  EmitContext &c;
  Ir &ir;
  const DecodeLayout l;
  const DType dtype;
  const int bytes; ///< Of an element.
  /// Of a warp's S^T and O^T, whose columns are the packed rows.
  const FragmentLayout s_layout, o_layout;
  Val thread, lane, warp;
};

} // namespace flashplus::decode
