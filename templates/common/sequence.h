// SPDX-License-Identifier: BSD-3-Clause
// Addressing: where the rows of one batch entry lie.
#pragma once

#include "ir/ir.h"
#include "spec/fields.h"

namespace flashplus {

/// Where the rows of one batch entry lie. Dense and ragged batches and seqused are one implementation,
/// told apart by null pointers at run time: the tests are uniform and outside all loops, and a serving
/// process then warms one kernel instead of four (docs/rationale/addressing.md). Paged keys are another
/// kernel; what forms its table has is told apart in the same way (docs/rationale/paged-keys.md).
class Sequence {
public:
  /// `keys`: how they are found; none if they are not asked for.
  Sequence(Ir &ir, const ParamReader &params, Val batch,
           std::optional<KeyAddressing> keys = KeyAddressing::Rows);

  Val q_len, k_len; ///< i32, valid rows.

  const ParamReader &params() const { return params_; }

  /// Keys are found through pages: there is no first row, and no two rows are a known distance apart.
  bool pagedKeys() const { return paged_; }
  /// First row of `operand` for `head`, as a pointer to elements of `bytes` bytes. Not of paged keys.
  Val rows(Operand operand, Val head, int bytes) const;
  /// Where the rows of `head` would lie if their offsets were 0; of paged keys.
  Val pool(Operand operand, Val head, int bytes) const;
  /// Of paged keys: bytes (i64) from pool() to row `key` (i32) of the sequence, which must be one. The same
  /// for all heads.
  Val pagedRow(Operand operand, Val key, int bytes) const;
  /// Of paged keys, what pagedRow() is made of: the slot of row `key` (i32), the entry (i64) of the
  /// sequence's table that has a slot's page, and that page (i32), which is read.
  Val slot(Val key) const { return key + leftpad_; }
  Val entry(Val slot) const;
  Val page(Val entry) const;
  /// Where row 0 of `operand` lies in its tensor map: {row, batch}, i32.
  std::pair<Val, Val> mapCoordinates(Operand operand) const;
  /// Whether rows of `operand` past its valid ones may be somebody else's data and not outside the tensor;
  /// i1.
  Val hasRowsBehind(Operand operand) const;
  /// Pointer to the LSE of query row 0.
  Val lse(Val head) const { return lseLike("lse", head); }
  /// The same of another tensor of that shape: param `name`, strides `name`_stride_b and `name`_stride_h.
  Val lseLike(std::string_view name, Val head) const;
  /// Number of query row 0 among all rows_q rows of the batch (i64); for partial results.
  Val firstRow() const { return first_row_; }

private:
  Ir &ir_;
  const ParamReader &params_;
  Val batch_, ragged_q_, ragged_k_; // i64, i1, i1
  Val start_q_, start_k_;           // i64, first row when ragged, else 0
  Val first_row_;

  void locatePages();
  bool paged_ = false;
  Val table_, has_table_;            // the sequence's first entry; i1
  Val leftpad_;                      // i32
  Val page_multiplier_, page_shift_; // i64
};

/// Whether some array says how long sequences are; i1.
Val sequenceLengthsDiffer(Ir &ir, const ParamReader &params, KeyAddressing keys);

} // namespace flashplus
