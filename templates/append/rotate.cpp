// SPDX-License-Identifier: BSD-3-Clause
#include "templates/append/rotate.h"

#include "ir/carried.h"
#include "ir/mma.h"
#include "templates/append/layout.h"
#include "templates/common/cpu_rows.h"

using namespace mlir;

namespace flashplus {
namespace {

struct Pair {
  Val first, second;
};

/// Scalars or vectors.
Pair turn(Ir &ir, Val a, Val b, Val cos, Val sin) {
  return {ir.fma(a, cos, ir.constant(a.type(), 0) - b * sin), ir.fma(a, sin, b * cos)};
}

/// The elements of `v` in the order of `lanes`.
Val shuffled(Ir &ir, Val v, ArrayRef<int64_t> lanes) {
  return ir.wrap(vector::ShuffleOp::create(ir.builder, ir.loc, v.value, v.value, lanes));
}

/// body(column, count) for the columns of [begin, end), i64: in runs of `width`, then in runs of `rest`.
void inRuns(Ir &ir, Val begin, Val end, int width, int rest, llvm::function_ref<void(Val, int)> body) {
  Val whole = begin + (end - begin) / width * width;
  ir.forLoop(begin, whole, ir.i64(width), [&](Val column) { body(column, width); });
  ir.forLoop(whole, end, ir.i64(rest), [&](Val column) { body(column, rest); });
}

} // namespace

void cpu::moveRow(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated) {
  const DType dtype = rotary.dtype;
  const int bytes = dtypeBytes(dtype);
  auto at = [&](Val row, Val column) { return ir.offset(row, column * bytes); };
  auto load = [&](Val row, Val column, int count) { return loadRow(ir, dtype, at(row, column), count); };
  Val turned = ir.toI64(rotated), half = turned / 2;
  ir.ifThen(rotated > 0, [&] {
    ir.ifThen(rotary.interleaved, [&] {
      SmallVector<int64_t> twice(size_t(ir.lanes)), partner(size_t(ir.lanes));
      SmallVector<bool> odd(size_t(ir.lanes));
      for (int i = 0; i < ir.lanes; ++i) {
        twice[size_t(i)] = i / 2;
        partner[size_t(i)] = i ^ 1;
        odd[size_t(i)] = i % 2;
      }
      auto flags = cast<VectorType>(ir.vec(ir.i1(), ir.lanes));
      Val second = ir.wrap(arith::ConstantOp::create(
          ir.builder, ir.loc,
          cast<TypedAttr>(Attribute(DenseElementsAttr::get(flags, ArrayRef<bool>(odd))))));
      inRuns(ir, ir.i64(0), turned, ir.lanes, 2, [&](Val column, int count) {
        Val x = load(from, column, count), other = shuffled(ir, x, partner);
        Val cos = shuffled(ir, load(rotary.cos, column / 2, count / 2), twice);
        Val sin = shuffled(ir, load(rotary.sin, column / 2, count / 2), twice);
        const Pair as_first = turn(ir, x, other, cos, sin), as_second = turn(ir, other, x, cos, sin);
        storeRow(ir, dtype, ir.select(second, as_second.second, as_first.first), at(to, column), count);
      });
    });
    ir.ifThen(!rotary.interleaved, [&] {
      inRuns(ir, ir.i64(0), half, ir.lanes, 1, [&](Val column, int count) {
        const Pair pair = turn(ir, load(from, column, count), load(from, column + half, count),
                               load(rotary.cos, column, count), load(rotary.sin, column, count));
        storeRow(ir, dtype, pair.first, at(to, column), count);
        storeRow(ir, dtype, pair.second, at(to, column + half), count);
      });
    });
  });
  // Bits, not numbers: what does not turn is copied as it is, a NaN of whatever kind included.
  Type element = bytes == 4 ? ir.i32() : ir.i16();
  Val end = ir.toI64(columns), whole = turned + (end - turned) / ir.lanes * ir.lanes;
  ir.forLoop(turned, whole, ir.i64(ir.lanes), [&](Val column) {
    ir.store(ir.load(ir.vec(element, ir.lanes), at(from, column), bytes), at(to, column), bytes);
  });
  ir.forLoop(whole, end, ir.i64(1),
             [&](Val column) { ir.store(ir.load(element, at(from, column), bytes), at(to, column), bytes); });
}

void gpu::moveRow(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated, Val lane,
                  int lanes) {
  const DType dtype = rotary.dtype;
  const int bytes = dtypeBytes(dtype);
  auto at = [&](Val row, Val column) { return ir.offset(row, ir.toI64(column) * bytes); };
  auto load = [&](Val row, Val column) { return loadElement(ir, dtype, at(row, column)); };
  Val half = rotated / 2;
  ir.forLoop(lane, half, ir.i32(lanes), [&](Val i) {
    Val first = ir.select(rotary.interleaved, i * 2, i);
    Val second = ir.select(rotary.interleaved, i * 2 + 1, i + half);
    const Pair pair =
        turn(ir, load(from, first), load(from, second), load(rotary.cos, i), load(rotary.sin, i));
    storeElement(ir, dtype, pair.first, at(to, first));
    storeElement(ir, dtype, pair.second, at(to, second));
  });
  ir.forLoop(rotated + lane, columns, ir.i32(lanes), [&](Val column) {
    ir.store(ir.load(ir.i16(), at(from, column), bytes), at(to, column), bytes);
  });
}

namespace {

/// Eight 16-bit elements on their way through a GPU's thread, as fp32.
class Unit {
public:
  Unit(Ir &ir, DType dtype) : ir_(ir), dtype_(dtype) {}

  /// `words` dwords from `pointer`, which is a multiple of as many bytes.
  Vals load(Val pointer, int words) const {
    Val packed = ir_.load(ir_.vec(ir_.i32(), words), pointer, words * 4);
    Vals elements;
    for (int i = 0; i < words; ++i) {
      Val word = ir_.wrap(vector::ExtractOp::create(ir_.builder, ir_.loc, packed.value, int64_t(i)));
      elements.push_back(element(word));
      elements.push_back(
          element(ir_.wrap(arith::ShRUIOp::create(ir_.builder, ir_.loc, word.value, ir_.i32(16).value))));
    }
    return elements;
  }

  void store(const Vals &elements, Val pointer) const {
    Val packed = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
    for (int i = 0; i < 4; ++i) {
      Val word = gpu::pack(ir_, dtype_, elements[size_t(2 * i)], elements[size_t(2 * i + 1)]);
      packed = ir_.wrap(vector::InsertOp::create(ir_.builder, ir_.loc, word.value, packed.value, int64_t(i)));
    }
    ir_.store(packed, pointer, 16);
  }

private:
  /// The lower half of a dword.
  Val element(Val word) const {
    Type type = dtype_ == DType::F16 ? Type(ir_.builder.getF16Type()) : Type(ir_.builder.getBF16Type());
    Val half =
        ir_.bitcast(type, ir_.wrap(arith::TruncIOp::create(ir_.builder, ir_.loc, ir_.i16(), word.value)));
    return ir_.wrap(arith::ExtFOp::create(ir_.builder, ir_.loc, ir_.f32(), half.value));
  }

  Ir &ir_;
  const DType dtype_;
};

} // namespace

void gpu::moveRowWide(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated, Val lane,
                      int lanes) {
  const Unit unit(ir, rotary.dtype);
  auto at = [&](Val row, Val index, int bytes) { return ir.offset(row, ir.toI64(index) * bytes); };
  Val units = rotated / kWideElements, half = units / 2; // of 16 bytes
  ir.ifThen(rotary.interleaved, [&] {
    ir.forLoop(lane, units, ir.i32(lanes), [&](Val i) {
      Vals x = unit.load(at(from, i, 16), 4);
      const Vals cos = unit.load(at(rotary.cos, i, 8), 2), sin = unit.load(at(rotary.sin, i, 8), 2);
      for (size_t e = 0; e < cos.size(); ++e) {
        const Pair pair = turn(ir, x[2 * e], x[2 * e + 1], cos[e], sin[e]);
        x[2 * e] = pair.first;
        x[2 * e + 1] = pair.second;
      }
      unit.store(x, at(to, i, 16));
    });
  });
  ir.ifThen(!rotary.interleaved, [&] {
    ir.forLoop(lane, half, ir.i32(lanes), [&](Val i) {
      Vals a = unit.load(at(from, i, 16), 4), b = unit.load(at(from, i + half, 16), 4);
      const Vals cos = unit.load(at(rotary.cos, i, 16), 4), sin = unit.load(at(rotary.sin, i, 16), 4);
      for (size_t e = 0; e < cos.size(); ++e) {
        const Pair pair = turn(ir, a[e], b[e], cos[e], sin[e]);
        a[e] = pair.first;
        b[e] = pair.second;
      }
      unit.store(a, at(to, i, 16));
      unit.store(b, at(to, i + half, 16));
    });
  });
  Type vector = ir.vec(ir.i32(), 4);
  ir.forLoop(units + lane, columns / kWideElements, ir.i32(lanes),
             [&](Val i) { ir.store(ir.load(vector, at(from, i, 16), 16), at(to, i, 16), 16); });
}

} // namespace flashplus
