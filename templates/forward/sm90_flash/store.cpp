// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm90_flash/store.h"

#include "ir/mma.h"
#include "ir/warp.h"
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

/// A thread holds 2 neighbouring columns of every block of 8, its quad a whole block; a 4 x 4 transpose among
/// the quad's threads gives each one block of four, 16 bytes that go out in one store.
void storeRow(Ir &ir, DType dtype, const Fragment &o, int row, int blocks, Val to, Val quad, Val valid) {
  Val odd = quad % 2 == 1, upper = quad >= 2;
  for (int group = 0; group < blocks; group += 4) {
    Val x[4];
    for (int j = 0; j < 4; ++j) {
      const int block = group + j;
      x[j] = block < blocks ? gpu::pack(ir, dtype, o.at(Axis::Rows, row, 2 * block),
                                        o.at(Axis::Rows, row, 2 * block + 1))
                            : ir.i32(0);
    }
    Val y[4]; // pairs of lanes: blocks 0 and 2 of the even lane, 1 and 3 of the odd one
    for (int j = 0; j < 4; j += 2) {
      Val got = gpu::shuffleXor(ir, ir.select(odd, x[j], x[j + 1]), 1);
      y[j] = ir.select(odd, got, x[j]);
      y[j + 1] = ir.select(odd, x[j + 1], got);
    }
    Val packed = ir.constant(ir.vec(ir.i32(), 4), 0);
    for (int j = 0; j < 2; ++j) {
      Val got = gpu::shuffleXor(ir, ir.select(upper, y[j], y[j + 2]), 2);
      Val keep = ir.select(upper, y[j + 2], y[j]);
      for (int half = 0; half < 2; ++half) {
        Val word = half == 0 ? ir.select(upper, got, keep) : ir.select(upper, keep, got);
        packed = ir.wrap(mlir::vector::InsertOp::create(ir.builder, ir.loc, word.value, packed.value,
                                                        int64_t(2 * half + j)));
      }
    }
    Val stores = blocks - group >= 4 ? valid : valid & (quad < blocks - group);
    ir.ifThen(stores,
              [&] { ir.store(packed, ir.offset(ir.offset(to, group * 16), ir.toI64(quad) * 16), 16); });
  }
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
  const int blocks = c.spec.head_dim_v / 8;
  for (int row = 0; row < rows.o.lines(Axis::Rows); ++row) {
    const auto finish = softmax::finishLine(ir, rows, row, empty, scale);
    Val r = number(row);
    ir.ifThen(stores_lse & (r <= item.last),
              [&] { ir.store(finish.lse, ir.offset(lse, ir.toI64(r) * 4), 4); });
    Val quad = lane % 4, to = ir.offset(values, ir.toI64(r) * stride), valid = r <= item.last;
    if (c.spec.isPartial())
      storePartialRow(ir, rows.o, row, blocks, to, quad, valid);
    else
      storeRow(ir, c.spec.dtype, rows.o, row, blocks, to, quad, valid);
  }
}

} // namespace flashplus::sm90_flash
