// SPDX-License-Identifier: BSD-3-Clause
// A warp's products of tiles in shared memory, by ldmatrix and mma.sync m16n8k16.
#pragma once

#include "spec/dtype.h"
#include "templates/common/fragment.h"

namespace flashplus {

/// Rows of 16-bit elements in shared memory, as the lanes of a warp address them for ldmatrix. What a product
/// reads is counted from `lane` on: row r, column c lie r * pitch + 2 c bytes further.
struct TileOperand {
  Val lane;
  int pitch; ///< Bytes from a row to the next; an odd number of 16-byte chunks keeps an ldmatrix in different
             ///< banks.

  /// `tile` points to the first row and column. Of a left operand A, whose rows are the product's, and of a
  /// right one that is read transposed, whose rows are summed over: lane -> row lane % 16, columns 8 (lane /
  /// 16).
  static TileOperand rows(Ir &ir, Val tile, int pitch, Val lane);
  /// Of a right operand B whose rows are the product's columns: matrices 0 and 1 are the two column halves of
  /// rows 0-7, 2 and 3 those of rows 8-15. (In the other order one address would serve both, but an operand's
  /// two registers must be neighbours, and each would have to be moved.)
  static TileOperand columns(Ir &ir, Val tile, int pitch, Val lane);

  TileOperand shifted(Val bytes) const { return {lane.ir->offset(lane, bytes), pitch}; }
};

/// A operands: [row block][step of 16 that are summed over], four registers each.
using LeftOperands = std::vector<std::vector<Vals>>;

/// The fragment's values rounded to `dtype`, as the next product's A operands.
LeftOperands leftOperands(const Fragment &f, DType dtype);

/// f += a b^T, summed over `depth` columns of both (a multiple of 16).
void multiplyTransposed(Ir &ir, DType dtype, Fragment &f, const TileOperand &a, const TileOperand &b,
                        int depth);

/// f += a b: b's rows are summed over, 16 a step, beginning with row 16 `first_step`; f's columns are b's
/// from the first on.
void multiply(Ir &ir, DType dtype, Fragment &f, const LeftOperands &a, const TileOperand &b,
              int first_step = 0);

} // namespace flashplus
