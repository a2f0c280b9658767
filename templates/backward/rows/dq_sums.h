// SPDX-License-Identifier: BSD-3-Clause
// Where dq is added up in memory (dq_parts of a spec whose algorithm adds, ItemTraits::adds_dq): fp32, head
// by head, in the order in which threads hold a product's accumulators. 8 rows and 16 columns lie together,
// 512 bytes: lane l of a warp has 16 bytes of row l / 4, its columns of both blocks of 8
// (templates/common/fragment_layout.h). A warp's addition is thereby 512 bytes in a row. A sequence's rows
// begin at a multiple of 8, so that a head has up to 8 rows a sequence more than it has queries.
#pragma once

#include "ir/ir.h"
#include "templates/backward/rows/dq_sums_rows.h"
#include "templates/common/sequence.h"

namespace flashplus {

class DQSums : public DQSumsRows {
public:
  /// Of one query head of a sequence. `columns`: head_dim_qk, a multiple of 16, or its i32.
  template <class Columns>
  DQSums(Ir &ir, const ParamReader &params, const Sequence &sequence, Val batch, Val head, Columns columns) {
    Val room = ir.toI64(params.get("batch")) * kRows + (kRows - 1);
    Val padded = (params.get("rows_q") + room) / kRows * kRows;
    Val start = (sequence.firstRow() + ir.toI64(batch) * kRows) / kRows * kRows;
    first_ = ir.offset(params.get("dq_parts"), (ir.toI64(head) * padded + start) * widened(ir, columns) * 4);
  }

  /// Pointer to row 0's.
  Val first() const { return first_; }

private:
  static int64_t widened(Ir &, int columns) { return columns; }
  static Val widened(Ir &ir, Val columns) { return ir.toI64(columns); }
  Val first_;
};

} // namespace flashplus
