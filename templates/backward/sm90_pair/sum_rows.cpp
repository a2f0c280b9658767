// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm90_pair/sum_rows.h"

#include "templates/common/quad_rows.h"

namespace flashplus {

void storeSumRows(EmitContext &c, const Sequence &sequence, Operand operand, Val head, Fragment sum,
                  Val factor, Val first, Val last, Val lane) {
  Ir &ir = c.ir;
  const int bytes = dtypeBytes(c.spec.dtype);
  Val base = sequence.rows(operand, head, bytes);
  Val stride = c.params.get(operandInfo(operand).stride_s) * bytes;
  if (factor)
    for (Val &x : sum.values)
      x = x * factor;
  for (int line = 0; line < sum.lines(Axis::Rows); ++line) {
    Val row = first + FragmentLayout::offset(Axis::Rows, line);
    storeQuadRow(ir, c.spec.dtype, sum, line, sum.layout.column_blocks,
                 ir.offset(base, ir.toI64(row) * stride), lane % 4, row <= last);
  }
}

} // namespace flashplus
