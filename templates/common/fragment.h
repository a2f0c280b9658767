// SPDX-License-Identifier: BSD-3-Clause
// Fragment: what a thread holds of a product's accumulators, and what can be done with it along either axis
// (templates/common/fragment_layout.h has the pictures).
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"
#include "templates/common/fragment_layout.h"
#include "templates/common/score_tile.h"

namespace flashplus {

struct Fragment {
  FragmentLayout layout;
  Vals values; ///< fp32, layout.size() of them.

  static Fragment filled(FragmentLayout layout, Val value) {
    return {layout, Vals(size_t(layout.size()), value)};
  }

  Val &at(Axis axis, int line, int i) { return values[size_t(layout.at(axis, line, i))]; }
  Val at(Axis axis, int line, int i) const { return values[size_t(layout.at(axis, line, i))]; }
  int lines(Axis axis) const { return layout.count(axis); }

  void fields(auto &&each) { each(values); }
};

using Combine = llvm::function_ref<Val(Val, Val)>;

/// Lane `lane`'s first row or column among the warp's; i32.
Val firstOfLane(Axis axis, Val lane);

/// The thread's elements of a line, combined in `chains` chains that do not wait for each other (a power of
/// two).
Val reduceInThread(const Fragment &f, Axis axis, int line, int chains, Combine combine);

/// `x` combined over the lanes that share the thread's line; all of them get the result. The whole warp is
/// here.
Val reduceAcrossLanes(Axis axis, Val x, Combine combine);

/// Every line times its factor.
void scaleLines(Fragment &f, Axis axis, const Vals &factors);

/// Line `line` times `factor`.
void scaleLine(Fragment &f, Axis axis, int line, Val factor);

/// -inf where query line `line` does not see a key, times `sign` elsewhere. Keys lie across; those from `lo`
/// to `hi` (not itself), counted from the thread's first one, are seen. No lower bound if `lo` is absent.
void hideKeys(Fragment &s, Axis queries, int line, Val lo, Val hi, Val sign);

/// The four registers of the next product's A operand that are columns [16 step, 16 step + 16) of a block of
/// rows.
Vals operandA(const Fragment &f, DType dtype, int row_block, int step);

/// The scores that a thread holds, with queries along `queries` whose numbers are `rows` and `key` that of
/// its first key.
ScoreTile scoreTile(const FragmentLayout &layout, Axis queries, Vals rows, Val key);

} // namespace flashplus
