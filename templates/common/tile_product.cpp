// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/tile_product.h"

#include "ir/mma.h"

#include <algorithm>

namespace flashplus {
namespace {

/// Two neighbouring blocks of columns += a times the four registers of b.
void accumulate(Ir &ir, DType dtype, Fragment &f, int row_block, int pair, const Vals &a, const Vals &b) {
  for (int n = 0; n < 2; ++n) {
    auto block = f.values.begin() + f.layout.block(row_block, 2 * pair + n);
    const Vals d =
        gpu::mma16816(ir, dtype, a, {b[size_t(2 * n)], b[size_t(2 * n + 1)]}, Vals(block, block + 4));
    std::ranges::copy(d, block);
  }
}

} // namespace

TileOperand TileOperand::rows(Ir &ir, Val tile, int pitch, Val lane) {
  return {ir.offset(tile, lane % 16 * pitch + lane / 16 * 16), pitch};
}

TileOperand TileOperand::columns(Ir &ir, Val tile, int pitch, Val lane) {
  return {ir.offset(tile, (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 16), pitch};
}

LeftOperands leftOperands(const Fragment &f, DType dtype) {
  LeftOperands a(static_cast<size_t>(f.layout.row_blocks));
  for (int row_block = 0; row_block < f.layout.row_blocks; ++row_block)
    for (int step = 0; step < f.layout.column_blocks / 2; ++step)
      a[size_t(row_block)].push_back(operandA(f, dtype, row_block, step));
  return a;
}

void multiplyTransposed(Ir &ir, DType dtype, Fragment &f, const TileOperand &a, const TileOperand &b,
                        int depth) {
  for (int step = 0; step < depth / 16; ++step) {
    std::vector<Vals> left;
    for (int row_block = 0; row_block < f.layout.row_blocks; ++row_block)
      left.push_back(gpu::loadMatrix4(ir, ir.offset(a.lane, row_block * 16 * a.pitch + step * 32), false));
    for (int pair = 0; pair < f.layout.column_blocks / 2; ++pair) {
      const Vals right = gpu::loadMatrix4(ir, ir.offset(b.lane, pair * 16 * b.pitch + step * 32), false);
      for (int row_block = 0; row_block < f.layout.row_blocks; ++row_block)
        accumulate(ir, dtype, f, row_block, pair, left[size_t(row_block)], right);
    }
  }
}

void multiply(Ir &ir, DType dtype, Fragment &f, const LeftOperands &a, const TileOperand &b, int first_step) {
  for (size_t step = 0; step < a[0].size(); ++step)
    for (int pair = 0; pair < f.layout.column_blocks / 2; ++pair) {
      const int row = (first_step + int(step)) * 16;
      const Vals right = gpu::loadMatrix4(ir, ir.offset(b.lane, row * b.pitch + pair * 32), true);
      for (int row_block = 0; row_block < f.layout.row_blocks; ++row_block)
        accumulate(ir, dtype, f, row_block, pair, a[size_t(row_block)][step], right);
    }
}

} // namespace flashplus
