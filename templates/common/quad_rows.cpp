// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/quad_rows.h"

#include "ir/mma.h"
#include "ir/warp.h"

namespace flashplus {

/// A thread holds 2 neighbouring columns of every block of 8, its quad a whole block; a 4 x 4 transpose among
/// the quad's threads gives each one block of four, 16 bytes that go out in one store.
void storeQuadRow(Ir &ir, DType dtype, const Fragment &f, int row, int blocks, Val to, Val quad, Val valid) {
  Val odd = quad % 2 == 1, upper = quad >= 2;
  for (int group = 0; group < blocks; group += 4) {
    Val x[4];
    for (int j = 0; j < 4; ++j) {
      const int block = group + j;
      x[j] = block < blocks ? gpu::pack(ir, dtype, f.at(Axis::Rows, row, 2 * block),
                                        f.at(Axis::Rows, row, 2 * block + 1))
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

} // namespace flashplus
