// SPDX-License-Identifier: BSD-3-Clause
// What a backward keeps of every query row: its LSE in base 2, its delta (spec/params.h), and its parts of
// dq.
#pragma once

#include "ir/ir.h"
#include "templates/common/sequence.h"

namespace flashplus {

/// Of one query head of a sequence, whose rows are numbered from 0.
class RowValues {
public:
  RowValues(Ir &ir, const ParamReader &params, const Sequence &sequence, Val head)
      : ir_(ir), params_(params), sequence_(sequence), head_(ir.toI64(head)) {}

  Val lse() const { return value("row_lse"); }     ///< Pointer to row 0's.
  Val delta() const { return value("row_delta"); } ///< Pointer to row 0's.

  /// Pointer to row 0 of part `split` (i64) of dq.
  Val dqPart(Val split, int head_dim) const {
    Val row = (split * heads() + head_) * params_.get("rows_q") + sequence_.firstRow();
    return ir_.offset(params_.get("dq_parts"), row * (head_dim * 4));
  }
  /// Bytes (i64) from a part to the next.
  Val dqPartBytes(int head_dim) const { return params_.get("rows_q") * heads() * (head_dim * 4); }

private:
  Val heads() const { return ir_.toI64(params_.get("heads_q")); }
  Val value(std::string_view name) const {
    return ir_.offset(params_.get(name), (head_ * params_.get("rows_q") + sequence_.firstRow()) * 4);
  }

  Ir &ir_;
  const ParamReader &params_;
  const Sequence &sequence_;
  Val head_;
};

} // namespace flashplus
