// SPDX-License-Identifier: BSD-3-Clause
// The mask of dropout (spec/dropout.h) on a CPU's vectors.
#pragma once

#include "ir/ir.h"
#include "templates/common/rng_state.h"

#include <array>

namespace flashplus {

class CpuDropout {
public:
  CpuDropout(Ir &ir, const ParamReader &params);

  /// Keys that are drawn at a time: a multiple of 16, and two vectors.
  int width() const { return 2 * ir_.lanes; }
  /// Draws the columns [begin, end) (i64) of a tile whose column 0 is key `key`, for rows [first, last) of
  /// head `head`: a bit each, 1 where it is kept. `key` is a multiple of width(); columns are drawn in whole
  /// steps of it. `bits`(row) says where a row's bits go: it is also asked for up to 15 rows on either side,
  /// which then have bits of their own or go where nobody looks. All other numbers i32.
  /// Rows i, i + 1, i + 8 and i + 9 have a word each of every call of Philox: they are drawn together.
  void drawTile(Val batch, Val head, Val first, Val last, Val key, Val begin, Val end,
                llvm::function_ref<Val(Val row)> bits) const;
  /// Bytes of a row of `columns` columns.
  static constexpr int rowBytes(int columns) { return columns / 8; }
  /// Of a row that was drawn: the vector's columns from `column` (i64) on, i1.
  Val kept(Val bits, Val column) const;
  /// Whether positions are kept, of a vector of rows, keys and heads, one a lane: i32 in, an i1 vector out.
  Val keepLanes(Val batch, Val heads, Val rows, Val keys) const;
  /// 1 / (1 - p)
  Val scale() const { return params_.get("drop_scale"); }

private:
  using Words = std::array<Val, 4>;
  Words random(Words counter) const;
  static constexpr int kRows = 4, kRowsApart[kRows] = {0, 1, 8, 9};
  /// Keys [key, key + width()) of the rows row + kRowsApart[], for an even row whose bit of 8 is 0; i1.
  std::array<Val, kRows> keepRows(Val batch, Val head, Val row, Val key) const;
  mlir::Type bitsType(int count) const;
  Val number(Val batch, Val head) const { return batch * params_.get("heads_q") + head; }

  Ir &ir_;
  const ParamReader &params_;
  const RngState rng_;
};

} // namespace flashplus
