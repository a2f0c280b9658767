// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_rows.h"

using namespace mlir;

namespace flashplus::cpu {
namespace {

/// True in the first `count` of `lanes` lanes.
Val laneMask(Ir &ir, int count, int lanes) {
  SmallVector<bool> bits(lanes, false);
  std::fill(bits.begin(), bits.begin() + count, true);
  auto type = cast<VectorType>(ir.vec(ir.i1(), lanes));
  return ir.wrap(arith::ConstantOp::create(
      ir.builder, ir.loc, cast<TypedAttr>(Attribute(DenseElementsAttr::get(type, ArrayRef<bool>(bits))))));
}

Val loadVector(Ir &ir, Type element, int bytes, Val pointer, int count, int lanes) {
  Type type = ir.vec(element, lanes);
  if (count == lanes)
    return ir.load(type, pointer, bytes);
  return ir.wrap(LLVM::MaskedLoadOp::create(ir.builder, ir.loc, type, pointer.value,
                                            laneMask(ir, count, lanes).value, ir.constant(type, 0).value,
                                            bytes));
}

void storeVector(Ir &ir, Val vector, int bytes, Val pointer, int count) {
  if (count == ir.lanes)
    return ir.store(vector, pointer, bytes);
  LLVM::MaskedStoreOp::create(ir.builder, ir.loc, vector.value, pointer.value,
                              laneMask(ir, count, ir.lanes).value, bytes);
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
    return loadVector(ir, ir.f32(), 4, pointer, count, ir.lanes);
  Val raw = loadVector(ir, ir.i16(), 2, pointer, count, ir.lanes);
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
  if (ir.bf16_dot) {
    Val narrow = ir.wrap(arith::TruncFOp::create(ir.builder, ir.loc,
                                                 ir.vec(ir.builder.getBF16Type(), ir.lanes), vector.value));
    return storeVector(ir, ir.bitcast(i16, narrow), 2, pointer, count);
  }
  // bf16 is the upper half of fp32, rounded to nearest even by adding just under half of its last place. A
  // NaN would be rounded into infinity; it is made the quiet NaN instead. (LLVM would call a library function
  // here.)
  Val bits = ir.bitcast(i32, vector);
  auto shiftRight = [&](Val v) {
    return ir.wrap(arith::ShRUIOp::create(ir.builder, ir.loc, v.value, ir.constant(i32, 16).value));
  };
  Val odd = shiftRight(bits) & ir.constant(i32, 1);
  Val rounded = shiftRight(bits + ir.constant(i32, 0x7fff) + odd);
  Val result = ir.select(vector != vector, ir.constant(i32, 0x7fc0), rounded);
  storeVector(ir, ir.wrap(arith::TruncIOp::create(ir.builder, ir.loc, i16, result.value)), 2, pointer, count);
}

Val loadPairs(Ir &ir, Val pointer, int count) {
  return ir.bitcast(ir.vec(ir.i32(), ir.lanes), loadVector(ir, ir.i16(), 2, pointer, count, 2 * ir.lanes));
}

Val interleaveRows(Ir &ir, Val row0, Val row1, Val has_row1, int count) {
  Type i32 = ir.vec(ir.i32(), ir.lanes);
  auto wide = [&](Val row) {
    Val raw = loadVector(ir, ir.i16(), 2, row, count, ir.lanes);
    return ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, i32, raw.value));
  };
  Val high = ir.wrap(arith::ShLIOp::create(ir.builder, ir.loc, wide(row1).value, ir.constant(i32, 16).value));
  return wide(row0) | ir.select(has_row1, high, ir.constant(i32, 0));
}

Val reduceMax(Ir &ir, Val vector) {
  return reduce(ir, vector, [&](Val a, Val b) { return ir.fmax(a, b); });
}

Val reduceSum(Ir &ir, Val vector) {
  return reduce(ir, vector, [](Val a, Val b) { return a + b; });
}

namespace {

/// Adds neighbouring units of `unit` lanes inside groups of `group` lanes: the sums of a's come first, then
/// those of b's.
Val addNeighbours(Ir &ir, Val a, Val b, int unit, int group) {
  SmallVector<int64_t> even, odd;
  for (int base = 0; base < ir.lanes; base += group)
    for (int from : {0, ir.lanes})
      for (int i = 0; i < group; i += 2 * unit)
        for (int j = 0; j < unit; ++j) {
          even.push_back(from + base + i + j);
          odd.push_back(from + base + i + unit + j);
        }
  return shuffle(ir, a, b, even) + shuffle(ir, a, b, odd);
}

Val combineSegment(Ir &ir, Val vector, int segment, llvm::function_ref<Val(Val, Val)> combine) {
  for (int step = 1; step < segment; step *= 2) {
    SmallVector<int64_t> other;
    for (int i = 0; i < ir.lanes; ++i)
      other.push_back(i ^ step);
    vector = combine(vector, shuffle(ir, vector, vector, other));
  }
  return vector;
}

} // namespace

Val sumEach(Ir &ir, Vals vectors) {
  // First inside the 128-bit parts of a register, where a shuffle is cheap, then across them.
  for (int unit : {1, 4})
    for (int steps = unit == 1 ? 4 : ir.lanes / 4; steps > 1; steps /= 2) {
      Vals next;
      for (size_t i = 0; i < vectors.size(); i += 2)
        next.push_back(addNeighbours(ir, vectors[i], vectors[i + 1], unit, unit == 1 ? 4 : ir.lanes));
      vectors = std::move(next);
    }
  return vectors.front();
}

Val segmentMax(Ir &ir, Val vector, int segment) {
  return combineSegment(ir, vector, segment, [&](Val a, Val b) { return ir.fmax(a, b); });
}

Val segmentSum(Ir &ir, Val vector, int segment) {
  return combineSegment(ir, vector, segment, [](Val a, Val b) { return a + b; });
}

Vals loadChunk(Ir &ir, DType dtype, Val pointer, int count) {
  if (dtype != DType::BF16) {
    Vals result{loadRow(ir, dtype, pointer, std::min(count, ir.lanes))};
    if (count > ir.lanes)
      result.push_back(
          loadRow(ir, dtype, ir.offset(pointer, int64_t(ir.lanes) * dtypeBytes(dtype)), count - ir.lanes));
    return result;
  }
  Type f32 = ir.vec(ir.f32(), ir.lanes), i32 = ir.vec(ir.i32(), ir.lanes);
  Val pairs = loadPairs(ir, pointer, count);
  Val even = ir.wrap(arith::ShLIOp::create(ir.builder, ir.loc, pairs.value, ir.constant(i32, 16).value));
  return {ir.bitcast(f32, even), ir.bitcast(f32, pairs & ir.constant(i32, -65536))};
}

Vals orderPairs(Ir &ir, Val even, Val odd) {
  const int n = ir.lanes;
  SmallVector<int64_t> low(n), high(n);
  for (int i = 0; i < n; ++i) {
    low[i] = i % 2 ? n + i / 2 : i / 2;
    high[i] = low[i] + n / 2;
  }
  return {shuffle(ir, even, odd, low), shuffle(ir, even, odd, high)};
}

void prefetch(Ir &ir, Val pointer) {
  constexpr int kRead = 0, kSecondLevel = 2, kData = 1;
  ir.intrinsic("llvm.prefetch.p0", {}, {pointer, ir.i32(kRead), ir.i32(kSecondLevel), ir.i32(kData)});
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

Val multiplyAdd(Ir &ir, Packed packed, Val a, Val b, Val acc) {
  if (packed == Packed::F32)
    return ir.fma(a, b, acc);
  if (ir.bf16_dot) {
    assert(ir.lanes == 16);
    Type bf16 = ir.vec(ir.builder.getBF16Type(), 2 * ir.lanes);
    return ir.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", acc.type(),
                        {acc, ir.bitcast(bf16, a), ir.bitcast(bf16, b)});
  }
  Type f32 = acc.type(), i32 = ir.vec(ir.i32(), ir.lanes);
  auto low = [&](Val v) {
    return ir.bitcast(
        f32, ir.wrap(arith::ShLIOp::create(ir.builder, ir.loc, v.value, ir.constant(i32, 16).value)));
  };
  auto high = [&](Val v) { return ir.bitcast(f32, v & ir.constant(i32, -65536)); };
  return ir.fma(high(a), high(b), ir.fma(low(a), low(b), acc));
}

Vals multiplyBlock(Ir &ir, Packed packed, int mr, int nr, Val begin, Val end, const Vals &init,
                   llvm::function_ref<Val(int r, Val i)> left, llvm::function_ref<Val(Val i)> right) {
  Type element = packed == Packed::F32 ? ir.f32() : ir.i32(), vector = ir.vec(element, ir.lanes);
  return ir.forLoop(begin, end, ir.i64(1), init, [&](Val i, const Vals &carried) {
    Vals acc = carried;
    Val row = right(i);
    Vals b;
    for (int c = 0; c < nr; ++c)
      b.push_back(ir.load(vector, ir.offset(row, int64_t(c) * ir.lanes * 4), ir.lanes * 4));
    for (int r = 0; r < mr; ++r) {
      Val a = ir.splat(ir.load(element, left(r, i), 4), ir.lanes);
      for (int c = 0; c < nr; ++c)
        acc[r * nr + c] = multiplyAdd(ir, packed, a, b[c], acc[r * nr + c]);
    }
    return acc;
  });
}

} // namespace flashplus::cpu
