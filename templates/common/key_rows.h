// SPDX-License-Identifier: BSD-3-Clause
// Where the rows of a tile come from: of K and V, and of Q, whose rows lie in the same way. Today a head's
// rows are equally far apart; keys that are found through a table would be found here.
#pragma once

#include "templates/common/sequence.h"

namespace flashplus {

/// The rows of an operand for one (batch, head).
struct KeyRows {
  const Sequence &sequence;
  Operand operand;
  Val head;

  /// Pointer to the sequence's row `key` (i32); elements have `bytes` bytes.
  Val row(Val key, int bytes) const {
    Val stride = sequence.params().get(operandInfo(operand).stride_s);
    return key.ir->offset(first(bytes), key.ir->toI64(key) * (stride * bytes));
  }

  /// Pointer to the sequence's row 0; elements have `bytes` bytes.
  Val first(int bytes) const { return sequence.rows(operand, head, bytes); }

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
