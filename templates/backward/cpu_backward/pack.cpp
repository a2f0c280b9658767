// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/cpu_backward/pack.h"

namespace flashplus::cpu_backward {

void Scratch::clear(int block, int count, Val index) {
  Val first = index ? index : ir_.i64(0);
  forRange(ir_.i64(0), ir_.i64(count), l_.lanes, [&](Val i) { storeVector(block, first + i, zero()); });
}

Val Scratch::laneNumbers() {
  llvm::SmallVector<int32_t> numbers(l_.lanes);
  for (int i = 0; i < l_.lanes; ++i)
    numbers[i] = i;
  auto type = mlir::cast<mlir::VectorType>(ir_.vec(ir_.i32(), l_.lanes));
  mlir::Attribute attr = mlir::DenseElementsAttr::get(type, llvm::ArrayRef<int32_t>(numbers));
  return ir_.wrap(mlir::arith::ConstantOp::create(ir_.builder, ir_.loc, mlir::cast<mlir::TypedAttr>(attr)));
}

Pack::Source Pack::source(Operand operand, Val head, Val row) {
  const DType dtype = c_.spec.dtypeOf(operand);
  const int bytes = dtypeBytes(dtype);
  Val stride = c_.params.get(operandInfo(operand).stride_s) * bytes;
  return {ir_.offset(seq_.rows(operand, head, bytes), ir_.toI64(row) * stride), stride, dtype};
}

void Pack::keys(Val head_k, Val key, Val keys) {
  const Source k = source(Operand::K, head_k, key), v = source(Operand::V, head_k, key);
  transposed(k, l_.dqk, l_.dqk_pad, l_.kt(), keys);
  transposed(v, l_.dv, l_.dv_pad, l_.vt(), keys);
  rows(k, l_.dqk, l_.dqk_pad, -1, {}, {}, l_.k(), l_.tile_n, keys);
}

void Pack::queries(Val head, Val query, Val count, Val scale) {
  Val left_rows = ir_.ceilDiv(count, l_.mr) * l_.mr;
  rows(source(Operand::Q, head, query), l_.dqk, l_.dqk_pad, l_.q(), scale, left_rows, l_.qPanels(), l_.tile_m,
       count);
  rows(source(Operand::DO, head, query), l_.dv, l_.dv_pad, l_.dout(), {}, left_rows, l_.doutPanels(),
       l_.tile_m, count);
}

void Pack::transposed(const Source &from, int dim, int pad, int block, Val count) {
  Val last = count - 1;
  const int width = l_.panel(), bytes = dtypeBytes(from.dtype);
  m_.forRange(ir_.i64(0), ir_.ceilDiv(count, width) * width, l_.lanes, [&](Val j) {
    Vals sources;
    for (int lane = 0; lane < l_.lanes; ++lane)
      sources.push_back(ir_.offset(from.first, ir_.min(j + lane, last) * from.stride));
    Val panel = j / width;
    Val at = panel * (width * pad) + (j - panel * width);
    m_.forColumns(dim, l_.lanes, [&](Val column, int columns) {
      Vals square;
      for (Val row : sources)
        square.push_back(cpu::loadRow(ir_, from.dtype, ir_.offset(row, column * bytes), columns));
      square = cpu::transpose(ir_, std::move(square));
      for (int i = 0; i < columns; ++i)
        m_.storeVector(block, at + (column + i) * width, square[size_t(i)]);
    });
  });
}

void Pack::rows(const Source &from, int dim, int pad, int left, Val scale, Val left_rows, int right, int tile,
                Val count) {
  const int bytes = dtypeBytes(from.dtype);
  m_.forRange(ir_.i64(0), left >= 0 ? left_rows : count, 1, [&](Val r) {
    Val row = ir_.offset(from.first, ir_.min(r, count - 1) * from.stride);
    m_.forColumns(pad, l_.panel(), [&](Val c0, int width) {
      for (int c = 0; c < width; c += l_.lanes) {
        Val column = c0 + c;
        auto put = [&](int columns) {
          Val x = cpu::loadRow(ir_, from.dtype, ir_.offset(row, column * bytes), columns);
          if (left >= 0)
            m_.storeVector(left, r * pad + column, scale ? x * scale : x);
          // a row that is repeated has room and is not read
          m_.storeVector(right, c0 * tile + r * width + c, x);
          return Vals();
        };
        const int rest = dim % l_.lanes;
        if (!rest)
          put(l_.lanes);
        else
          ir_.ifElse(column == dim - rest, [&] { return put(rest); }, [&] { return put(l_.lanes); });
      }
    });
  });
}

} // namespace flashplus::cpu_backward
