// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_rows.h"

using namespace mlir;

namespace flashplus::cpu {
namespace {

/// True in the first `count` lanes.
Val laneMask(Ir &ir, int count) {
  SmallVector<bool> bits(ir.lanes, false);
  std::fill(bits.begin(), bits.begin() + count, true);
  auto type = cast<VectorType>(ir.vec(ir.i1(), ir.lanes));
  return ir.wrap(arith::ConstantOp::create(
      ir.builder, ir.loc, cast<TypedAttr>(Attribute(DenseElementsAttr::get(type, ArrayRef<bool>(bits))))));
}

Val loadVector(Ir &ir, Type element, int bytes, Val pointer, int count) {
  Type type = ir.vec(element, ir.lanes);
  if (count == ir.lanes)
    return ir.load(type, pointer, bytes);
  return ir.wrap(LLVM::MaskedLoadOp::create(ir.builder, ir.loc, type, pointer.value, laneMask(ir, count).value,
                                            ir.constant(type, 0).value, bytes));
}

void storeVector(Ir &ir, Val vector, int bytes, Val pointer, int count) {
  if (count == ir.lanes)
    return ir.store(vector, pointer, bytes);
  LLVM::MaskedStoreOp::create(ir.builder, ir.loc, vector.value, pointer.value, laneMask(ir, count).value, bytes);
}

Val shuffle(Ir &ir, Val a, Val b, ArrayRef<int64_t> lanes) {
  return ir.wrap(vector::ShuffleOp::create(ir.builder, ir.loc, a.value, b.value, lanes));
}

/// Folds the upper half of a vector onto the lower until one lane is left.
Val reduce(Ir &ir, Val vector, llvm::function_ref<Val(Val, Val)> combine) {
  for (int width = ir.lanes / 2; width >= 1; width /= 2) {
    SmallVector<int64_t> lanes(ir.lanes);
    for (int i = 0; i < ir.lanes; ++i)
      lanes[i] = i < width ? i + width : i;
    vector = combine(vector, shuffle(ir, vector, vector, lanes));
  }
  return ir.wrap(vector::ExtractOp::create(ir.builder, ir.loc, vector.value, int64_t(0)));
}

} // namespace

Val loadRow(Ir &ir, DType dtype, Val pointer, int count) {
  if (dtype == DType::F32)
    return loadVector(ir, ir.f32(), 4, pointer, count);
  Val raw = loadVector(ir, ir.i16(), 2, pointer, count);
  Type f32 = ir.vec(ir.f32(), ir.lanes), i32 = ir.vec(ir.i32(), ir.lanes);
  if (dtype == DType::F16) {
    Val half = ir.bitcast(ir.vec(ir.builder.getF16Type(), ir.lanes), raw);
    return ir.wrap(arith::ExtFOp::create(ir.builder, ir.loc, f32, half.value));
  }
  Val wide = ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, i32, raw.value));
  Val bits = ir.wrap(arith::ShLIOp::create(ir.builder, ir.loc, wide.value, ir.constant(i32, 16).value));
  return ir.bitcast(f32, bits);
}

void storeRow(Ir &ir, DType dtype, Val vector, Val pointer, int count) {
  if (dtype == DType::F32)
    return storeVector(ir, vector, 4, pointer, count);
  Type i16 = ir.vec(ir.i16(), ir.lanes), i32 = ir.vec(ir.i32(), ir.lanes);
  if (dtype == DType::F16) {
    Val half = ir.wrap(arith::TruncFOp::create(ir.builder, ir.loc, ir.vec(ir.builder.getF16Type(), ir.lanes),
                                               vector.value));
    return storeVector(ir, ir.bitcast(i16, half), 2, pointer, count);
  }
  // bf16 is the upper half of fp32, rounded to nearest even by adding just under half of its last place. A NaN would
  // be rounded into infinity; it is made the quiet NaN instead. (LLVM would call a library function here.)
  Val bits = ir.bitcast(i32, vector);
  auto shiftRight = [&](Val v) {
    return ir.wrap(arith::ShRUIOp::create(ir.builder, ir.loc, v.value, ir.constant(i32, 16).value));
  };
  Val odd = shiftRight(bits) & ir.constant(i32, 1);
  Val rounded = shiftRight(bits + ir.constant(i32, 0x7fff) + odd);
  Val result = ir.select(vector != vector, ir.constant(i32, 0x7fc0), rounded);
  storeVector(ir, ir.wrap(arith::TruncIOp::create(ir.builder, ir.loc, i16, result.value)), 2, pointer, count);
}

Val reduceMax(Ir &ir, Val vector) {
  return reduce(ir, vector, [&](Val a, Val b) { return ir.fmax(a, b); });
}

Val reduceSum(Ir &ir, Val vector) {
  return reduce(ir, vector, [](Val a, Val b) { return a + b; });
}

Vals transpose(Ir &ir, Vals rows) {
  const int n = ir.lanes;
  SmallVector<int64_t> low(n), high(n);
  for (int i = 0; i < n; ++i) {
    low[i] = i % 2 ? n + i / 2 : i / 2;
    high[i] = low[i] + n / 2;
  }
  // Interleaving row i with row i + n/2 is one step of a perfect shuffle; log2(n) steps transpose.
  for (int step = 1; step < n; step *= 2) {
    Vals next(n);
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = shuffle(ir, rows[i], rows[i + n / 2], low);
      next[2 * i + 1] = shuffle(ir, rows[i], rows[i + n / 2], high);
    }
    rows = std::move(next);
  }
  return rows;
}

Vals multiplyBlock(Ir &ir, int mr, int nr, Val depth, const Vals &init, llvm::function_ref<Val(int r, Val i)> left,
                   llvm::function_ref<Val(Val i)> right) {
  Type vector = ir.vec(ir.f32(), ir.lanes);
  return ir.forLoop(ir.i64(0), depth, ir.i64(1), init, [&](Val i, const Vals &carried) {
    Vals acc = carried;
    Val row = right(i);
    Vals b;
    for (int c = 0; c < nr; ++c)
      b.push_back(ir.load(vector, ir.offset(row, int64_t(c) * ir.lanes * 4), ir.lanes * 4));
    for (int r = 0; r < mr; ++r) {
      Val a = ir.splat(left(r, i), ir.lanes);
      for (int c = 0; c < nr; ++c)
        acc[r * nr + c] = ir.fma(a, b[c], acc[r * nr + c]);
    }
    return acc;
  });
}

} // namespace flashplus::cpu
