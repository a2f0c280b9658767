// SPDX-License-Identifier: BSD-3-Clause
// Where the rows of a tile come from: of K and V, and of Q, whose rows lie in the same way. A head's rows are
// equally far apart, or found through pages.
#pragma once

#include "templates/common/sequence.h"

namespace flashplus {

/// The rows of an operand for one (batch, head).
struct KeyRows {
  const Sequence &sequence;
  Operand operand;
  Val head;
  Val least = {}; ///< Of paged keys: the first one (i32) that a row of the item sees; none: 0. Those before
                  ///< it may have no page any more.

  /// They are found through pages, row by row.
  bool paged() const { return sequence.pagedKeys() && operandInfo(operand).side == Side::Key; }
  /// Pointer to the sequence's row 0; elements have `bytes` bytes. Not of paged keys.
  Val first(int bytes) const { return sequence.rows(operand, head, bytes); }
  /// Pointer to the sequence's row `key` (i32); elements have `bytes` bytes. Of paged keys: at most the last
  /// one, and a key before `least` stands for it.
  Val row(Val key, int bytes) const {
    Ir &ir = *key.ir;
    if (paged())
      return ir.offset(sequence.pool(operand, head, bytes),
                       sequence.pagedRow(operand, least ? ir.max(key, least) : key, bytes));
    Val stride = sequence.params().get(operandInfo(operand).stride_s);
    return ir.offset(first(bytes), ir.toI64(key) * (stride * bytes));
  }

  /// Boxes of the operand's tensor map.
  struct Boxes {
    Val first_row, batch, head; ///< i32
    /// Coordinates of the box that starts at `column` of the sequence's row `row`.
    Vals at(Val column, Val row) const { return {column, first_row + row, head, batch}; }
  };
  Boxes boxes() const {
    const auto [first_row, batch] = sequence.mapCoordinates(operand);
    return {first_row, batch, head};
  }

  /// Whether rows past the sequence's may be somebody else's data and not outside the tensor; i1.
  Val hasRowsBehind() const { return sequence.hasRowsBehind(operand); }
};

} // namespace flashplus
