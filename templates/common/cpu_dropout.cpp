// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/cpu_dropout.h"

#include "spec/dropout.h"

using namespace mlir;

namespace flashplus {
namespace {

constexpr int64_t kLow = 0xffffffff;

Val shiftRight(Ir &ir, Val x, Val by) {
  return ir.wrap(arith::ShRUIOp::create(ir.builder, ir.loc, x.value, by.value));
}
Val shiftRight(Ir &ir, Val x, int by) { return shiftRight(ir, x, ir.constant(x.type(), by)); }

/// i32 -> i64, as without a sign.
Val wide(Ir &ir, Val x) {
  auto vector = dyn_cast<VectorType>(x.type());
  Type to = vector ? Type(vector.clone(ir.i64())) : ir.i64();
  return ir.wrap(arith::ExtUIOp::create(ir.builder, ir.loc, to, x.value));
}
Val narrow(Ir &ir, Val x) {
  return ir.wrap(
      arith::TruncIOp::create(ir.builder, ir.loc, cast<VectorType>(x.type()).clone(ir.i32()), x.value));
}

Val atMost(Ir &ir, Val a, Val b) {
  return ir.wrap(arith::CmpIOp::create(ir.builder, ir.loc, arith::CmpIPredicate::ule, a.value, b.value));
}

Val shuffled(Ir &ir, Val x, ArrayRef<int64_t> order) {
  return ir.wrap(vector::ShuffleOp::create(ir.builder, ir.loc, x.value, x.value, order));
}

Val constants(Ir &ir, ArrayRef<int64_t> values) {
  auto type = cast<VectorType>(ir.vec(ir.i64(), int(values.size())));
  return ir.wrap(arith::ConstantOp::create(ir.builder, ir.loc, DenseElementsAttr::get(type, values)));
}

} // namespace

CpuDropout::CpuDropout(Ir &ir, const ParamReader &params) : ir_(ir), params_(params), rng_(ir, params) {}

/// Philox 4x32 of counters whose words are the low halves of i64 lanes, which is where a product has them;
/// the high halves are anything, before and after.
CpuDropout::Words CpuDropout::random(Words c) const {
  Val key[2] = {rng_.key[0], rng_.key[1]};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    Val low = ir_.constant(c[0].type(), kLow);
    Val p0 = (c[0] & low) * ir_.constant(c[0].type(), int64_t(kPhiloxMultiplier0));
    Val p2 = (c[2] & low) * ir_.constant(c[2].type(), int64_t(kPhiloxMultiplier2));
    c = {shiftRight(ir_, p2, 32) ^ c[1] ^ wide(ir_, key[0]), p2,
         shiftRight(ir_, p0, 32) ^ c[3] ^ wide(ir_, key[1]), p0};
    key[0] = key[0] + int64_t(int32_t(kPhiloxKeyStep0));
    key[1] = key[1] + int64_t(int32_t(kPhiloxKeyStep1));
  }
  return c;
}

std::array<Val, CpuDropout::kRows> CpuDropout::keepRows(Val batch, Val head, Val row, Val key) const {
  // The rows' granules of a block of 16 keys are four calls, one after the other; each row has one word of
  // each.
  const int blocks = width() / kDropoutBlock, lanes = 4 * blocks;
  SmallVector<int64_t> granules;
  for (int i = 0; i < lanes; ++i)
    granules.push_back(i / 4 * 16 + i % 4);
  auto all = [&](Val scalar) { return ir_.splat(wide(ir_, scalar), lanes); };
  Val first = key + (shiftRight(ir_, row, 1) & 3) * 4; // (key / 16) * 16 + 4 a
  const Words drawn = random({all(first) + constants(ir_, granules), all(shiftRight(ir_, row, 4)),
                              all(number(batch, head)), all(rng_.offset)});
  // Bytes in the order of the keys.
  Type bytes = ir_.vec(ir_.builder.getI8Type(), width());
  SmallVector<int64_t> order;
  for (int j = 0; j < width(); ++j)
    order.push_back(j / 16 * 16 + 4 * (j >> 1 & 3) + (j & 1) + 2 * (j >> 3 & 1));
  std::array<Val, kRows> rows;
  for (size_t word = 0; word < kRows; ++word) {
    Val words = ir_.bitcast(bytes, narrow(ir_, drawn[word]));
    Val thresholds = ir_.bitcast(bytes, ir_.splat(params_.get("drop_thresholds", int(word)), lanes));
    rows[word] = atMost(ir_, shuffled(ir_, words, order), shuffled(ir_, thresholds, order));
  }
  return rows;
}

void CpuDropout::drawTile(Val batch, Val head, Val first, Val last, Val key, Val begin, Val end,
                          llvm::function_ref<Val(Val row)> bits) const {
  Val begin_row = first & ~int64_t(kDropoutBlock - 1);
  auto wanted = [&](Val row) { return (row < last) & (row + 1 >= first); };
  ir_.forLoop(begin_row, last, ir_.i32(kDropoutBlock), [&](Val block) {
    ir_.forLoop(block, block + kDropoutBlock / 2, ir_.i32(2), [&](Val row) {
      ir_.ifThen(wanted(row) | wanted(row + kDropoutBlock / 2), [&] {
        std::array<Val, kRows> to;
        for (size_t word = 0; word < kRows; ++word)
          to[word] = bits(row + kRowsApart[word]);
        ir_.forLoop(begin / width() * width(), end, ir_.i64(width()), [&](Val column) {
          const std::array<Val, kRows> rows = keepRows(batch, head, row, key + ir_.toI32(column));
          for (size_t word = 0; word < kRows; ++word)
            ir_.store(ir_.bitcast(bitsType(width()), rows[word]), ir_.offset(to[word], column / 8));
        });
      });
    });
  });
}

Val CpuDropout::kept(Val bits, Val column) const {
  Val loaded = ir_.load(bitsType(ir_.lanes), ir_.offset(bits, column / 8));
  return ir_.bitcast(ir_.vec(ir_.builder.getI1Type(), ir_.lanes), loaded);
}

Type CpuDropout::bitsType(int count) const { return ir_.builder.getIntegerType(unsigned(count)); }

Val CpuDropout::keepLanes(Val batch, Val heads, Val rows, Val keys) const {
  const int lanes = ir_.lanes;
  auto bits = [&](Val x, int from, int mask) { return shiftRight(ir_, x, from) & mask; };
  auto all = [&](Val scalar) { return ir_.splat(wide(ir_, scalar), lanes); };
  Val block = (keys & ~int64_t(kDropoutBlock - 1)) + bits(rows, 1, 3) * 4 + bits(keys, 1, 3);
  const Words drawn = random({wide(ir_, block), wide(ir_, shiftRight(ir_, rows, 4)),
                              wide(ir_, number(batch, heads)), all(rng_.offset)});
  Val odd = bits(rows, 0, 1) != 0, low = bits(rows, 3, 1) == 0;
  auto ofRow = [&](Val w0, Val w1, Val w2, Val w3) {
    return ir_.select(low, ir_.select(odd, w1, w0), ir_.select(odd, w3, w2));
  };
  auto threshold = [&](int word) { return ir_.splat(params_.get("drop_thresholds", word), lanes); };
  Val shift = (bits(keys, 0, 1) + bits(keys, 3, 1) * 2) * 8;
  Val random = shiftRight(ir_, narrow(ir_, ofRow(drawn[0], drawn[1], drawn[2], drawn[3])), shift) & 0xff;
  Val most = shiftRight(ir_, ofRow(threshold(0), threshold(1), threshold(2), threshold(3)), shift) & 0xff;
  return random <= most;
}

} // namespace flashplus
