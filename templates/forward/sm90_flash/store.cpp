// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm90_flash/store.h"

#include "templates/common/quad_rows.h"
#include "templates/common/result_rows.h"

namespace flashplus::sm90_flash {
namespace {

/// fp32, from registers.
void storePartialRow(Ir &ir, const Fragment &o, int row, int blocks, Val to, Val quad, Val valid) {
  ir.ifThen(valid, [&] {
    Val mine = ir.offset(to, ir.toI64(quad) * 8);
    for (int i = 0; i < 2 * blocks; ++i)
      ir.store(o.at(Axis::Rows, row, i), ir.offset(mine, i / 2 * 32 + i % 2 * 4), 4);
  });
}

} // namespace

void storeResults(EmitContext &c, const Item &item, softmax::State rows, Val lane,
                  llvm::function_ref<Val(int)> number) {
  Ir &ir = c.ir;
  const ResultRows results(ir, c.params, c.spec, item.seq, item.work);
  Val empty = results.lseEmpty(), stores_lse = lane % 4 == 0, lse = results.lse();
  stores_lse = results.storesLse(stores_lse);
  Val stride = results.rowStride(), values = results.values();
  Val scale = c.spec.dropout ? c.params.get("drop_scale") : Val{};
  const auto sink = softmax::sinkOf(ir, c.params, c.spec, item.work.head);
  const int blocks = c.spec.head_dim_v / 8;
  for (int row = 0; row < rows.o.lines(Axis::Rows); ++row) {
    const auto finish = softmax::finishLine(ir, rows, row, empty, scale, sink);
    Val r = number(row);
    ir.ifThen(stores_lse & (r <= item.last),
              [&] { ir.store(finish.lse, ir.offset(lse, ir.toI64(r) * 4), 4); });
    Val quad = lane % 4, to = ir.offset(values, ir.toI64(r) * stride), valid = r <= item.last;
    if (c.spec.isPartial())
      storePartialRow(ir, rows.o, row, blocks, to, quad, valid);
    else
      storeQuadRow(ir, c.spec.dtype, rows.o, row, blocks, to, quad, valid);
  }
}

} // namespace flashplus::sm90_flash
