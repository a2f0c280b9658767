// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/gradient_rows.h"

#include "ir/mma.h"

namespace flashplus {

void storeFragment(Ir &ir, DType dtype, const Fragment &f, Val factor, Val lane, Val tile, int pitch) {
  Val to = ir.offset(tile, firstOfLane(Axis::Rows, lane) * pitch +
                               firstOfLane(Axis::Columns, lane) * dtypeBytes(dtype));
  for (int row = 0; row < f.lines(Axis::Rows); ++row)
    for (int block = 0; block < f.layout.column_blocks; ++block) {
      Val low = f.at(Axis::Rows, row, 2 * block), high = f.at(Axis::Rows, row, 2 * block + 1);
      if (factor)
        low = low * factor, high = high * factor;
      ir.store(gpu::pack(ir, dtype, low, high),
               ir.offset(to, FragmentLayout::offset(Axis::Rows, row) * pitch + block * 16), 4);
    }
}

void storeRows(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence,
               const GradientTile &t, Val thread, int threads) {
  const int bytes = dtypeBytes(spec.dtypeOf(t.operand)), chunks = (t.dim + 7) / 8, total = t.rows * chunks;
  Val base = sequence.rows(t.operand, t.head, bytes);
  Val stride = params.get(operandInfo(t.operand).stride_s) * bytes;
  ir.rareLoop(thread, ir.i32(total), ir.i32(threads), [&](Val index) {
    Val r = index / chunks, column = index % chunks;
    ir.ifThen(t.first + r <= t.last, [&] {
      Val from = ir.offset(t.tile, r * t.pitch + column * 16);
      Val to = ir.offset(ir.offset(base, ir.toI64(t.first + r) * stride), ir.toI64(column) * 16);
      if (spec.alignment == 16) {
        ir.store(ir.load(ir.vec(ir.i32(), 4), from, 16), to, 16);
        return;
      }
      for (int e = 0; e < 8; ++e) {
        auto body = [&] {
          ir.store(ir.load(ir.i16(), ir.offset(from, e * bytes), bytes), ir.offset(to, e * bytes), bytes);
        };
        if (t.dim % 8 == 0)
          body();
        else
          ir.ifThen(column * 8 + e < t.dim, body);
      }
    });
  });
}

} // namespace flashplus
