// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/score.h"

#include "ir/warp.h"
#include "templates/common/score_gradient.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;

namespace flashplus {

bool isPlainScore(Region &region) {
  auto yield = cast<attn::YieldOp>(region.front().getTerminator());
  return yield.getValue() == region.front().getArgument(attn::kScore);
}

bool hasSlope(attn::YieldOp yield) {
  return yield.getValues().size() > 1 && !matchPattern(yield.getSlope(), m_OneFloat());
}

bool hasSlope(Region &region) { return hasSlope(cast<attn::YieldOp>(region.front().getTerminator())); }

Score::Score(Ir &ir, const ParamReader &params, Region &region, const WorkItem &item,
             const Sequence &sequence)
    : ir_(ir), params_(params), block_(region.front()), item_(item), sequence_(sequence) {
  identity_ = isPlainScore(region);
}

namespace {

int lanesOf(Value value) {
  auto type = dyn_cast<VectorType>(value.getType());
  return type ? int(type.getNumElements()) : 0;
}

} // namespace

namespace {

/// What an index can be before it is clamped.
enum class IndexRange { Inside, NotNegative, Any };

IndexRange rangeOf(Value index) {
  if (auto argument = dyn_cast<BlockArgument>(index))
    switch (argument.getArgNumber()) {
    case attn::kBatch:
    case attn::kHead:
    case attn::kHeadK:
      return IndexRange::Inside; // checked against the shape when the tensor is bound
    default:
      return IndexRange::NotNegative;
    }
  return index.getDefiningOp<attn::IndexOp>() ? IndexRange::NotNegative : IndexRange::Any;
}

} // namespace

bool clampsIndices(Region &region) {
  return llvm::any_of(region.front().getOps<attn::AuxOp>(), [](attn::AuxOp op) {
    return llvm::any_of(op.getIndices(), [](Value index) { return rangeOf(index) != IndexRange::Inside; });
  });
}

Val scoreIndex(Ir &ir, Val value) {
  if (ir.gpu) // cvt.rzi.u32.f32 saturates, and makes 0 of NaN
    return ir.intrinsic("llvm.nvvm.f2ui.rz", ir.i32(), {value});
  // x86 converts what int32 can't hold into its least number, and LLVM makes poison of it. NaN loses against
  // a number.
  constexpr double kMost = 2147483520; // the last fp32 number below 2^31
  Val inside = ir.fmax(value, ir.constant(value.type(), 0)), most = ir.constant(value.type(), kMost);
  inside = ir.select(inside < most, inside, most);
  Type type = ir.i32();
  if (auto vector = dyn_cast<VectorType>(value.type()))
    type = vector.clone(type);
  return ir.wrap(ir.builder.createOrFold<arith::FPToSIOp>(ir.loc, type, inside.value));
}

Val scoreRemainder(Ir &ir, Val a, Val b) {
  if (getElementTypeOrSelf(a.type()).isInteger()) {
    Val left = a % b;
    return ir.select(left < 0, left + b, left);
  }
  // A quotient next to a whole number may be rounded to the other side of it: a sum with b puts that right.
  // No product where the quotient is 0: b may be infinite.
  Val whole = ir.wrap(math::FloorOp::create(ir.builder, ir.loc, (a / b).value));
  Val left = ir.select(whole == 0.0, a, ir.fma(whole * -1.0, b, a));
  Val less = left + b, more = left - b;
  Val below = ir.select(b<0.0, left> 0.0, left < 0.0), above = ir.select(b < 0.0, left <= b, left >= b);
  return ir.select(below, less, ir.select(above, more, left));
}

Vals lastIndices(Ir &ir, const ParamReader &params, int slot, ValueRange indices) {
  Vals last;
  for (auto [dim, index] : llvm::enumerate(indices)) {
    last.emplace_back();
    if (rangeOf(index) == IndexRange::Inside)
      continue;
    last.back() = params.get("aux_last", slot * kMaxScoreTensorRank + int(dim));
    // The keys of a sequence's first tile are the same for all sequences: clamped ahead of all loops, they
    // fill the registers.
    if (ir.gpu)
      last.back() = gpu::again(ir, last.back());
  }
  return last;
}

ScoreElement scoreElement(Ir &ir, const ParamReader &params, std::string_view base,
                          std::string_view stride_of, int slot, ValueRange indices, ArrayRef<Val> at,
                          const Vals &last) {
  Val first = params.get(base, slot);
  int lanes = 0;
  SmallVector<Val> clamped;
  for (size_t dim = 0; dim < at.size(); ++dim) {
    Val index = at[dim];
    lanes = std::max(lanes, lanesOf(index.value));
    if (rangeOf(indices[dim]) == IndexRange::Any)
      index = ir.max(index, ir.constant(index.type(), 0));
    if (last[dim])
      index = ir.minUnsigned(index, last[dim]);
    clamped.push_back(index);
  }
  // Offset of the scalar indices, and one vector of offsets for the others.
  Val uniform = ir.i64(0), varying;
  for (auto [dim, index] : llvm::enumerate(clamped)) {
    Val stride = params.get(stride_of, slot * kMaxScoreTensorRank + int(dim)) * 4;
    if (!lanesOf(index.value)) {
      uniform = uniform + ir.toI64(index) * stride;
      continue;
    }
    Val wide = ir.wrap(arith::ExtSIOp::create(ir.builder, ir.loc, ir.vec(ir.i64(), lanes), index.value));
    Val part = wide * stride;
    varying = varying ? varying + part : part;
  }
  return {ir.offset(first, uniform), varying};
}

Val readScoreTensor(Ir &ir, const ParamReader &params, attn::AuxOp op, ArrayRef<Val> indices,
                    const Vals &last) {
  const auto [row, varying] =
      scoreElement(ir, params, "aux", "aux_stride", int(op.getSlot()), op.getIndices(), indices, last);
  if (varying.absent())
    return ir.load(ir.f32(), row, 4, /*invariant=*/!ir.overlaps);
  const int lanes = lanesOf(varying.value);
  Val result = ir.constant(ir.vec(ir.f32(), lanes), 0);
  for (int lane = 0; lane < lanes; ++lane) {
    Val at = ir.wrap(vector::ExtractOp::create(ir.builder, ir.loc, varying.value, int64_t(lane)));
    Val element = ir.load(ir.f32(), ir.offset(row, at), 4, /*invariant=*/!ir.overlaps);
    result =
        ir.wrap(vector::InsertOp::create(ir.builder, ir.loc, element.value, result.value, int64_t(lane)));
  }
  return result;
}

Score::WithSlope Score::evaluate(Val s, Val row, Val key, Val head) const {
  if (identity_)
    return {s, {}, {}};
  Ir &ir = ir_;
  const int lanes = lanesOf(s.value);
  if (!lanesOf(key.value)) {
    SmallVector<int32_t> steps(lanes);
    for (int i = 0; i < lanes; ++i)
      steps[i] = i;
    auto type = cast<VectorType>(ir.vec(ir.i32(), lanes));
    Val iota = ir.wrap(arith::ConstantOp::create(
        ir.builder, ir.loc,
        cast<TypedAttr>(Attribute(DenseElementsAttr::get(type, ArrayRef<int32_t>(steps))))));
    key = ir.splat(key, lanes) + iota;
  }
  llvm::DenseMap<Value, Val> map;
  const Val args[attn::kNumScoreArgs] = {s,   item_.batch, head ? head : item_.head, item_.head_k,
                                         row, key,         sequence_.q_len,          sequence_.k_len};
  for (int i = 0; i < attn::kNumScoreArgs; ++i)
    map[block_.getArgument(i)] = args[i];

  std::vector<ScoreDerivative> derivatives;
  for (mlir::Operation &op : block_) {
    if (auto yield = dyn_cast<attn::YieldOp>(op)) {
      Val result = map[yield.getValue()];
      return {lanesOf(result.value) ? result : ir.splat(result, lanes),
              hasSlope(yield) ? map[yield.getSlope()] : Val{}, std::move(derivatives)};
    }
    if (isScoreDerivative(op)) {
      ScoreDerivative &d = derivatives.emplace_back(&op, Vals{map[derivativeOf(op)]});
      for (Value index : indicesOf(op))
        d.indices.push_back({map[index]});
      continue;
    }
    if (auto scalar = dyn_cast<attn::ScalarOp>(op)) {
      map[scalar.getResult()] = params_.get("scalar", int(scalar.getSlot()));
      continue;
    }
    SmallVector<Val> operands;
    bool varying = false;
    for (Value operand : op.getOperands()) {
      operands.push_back(map[operand]);
      varying |= lanesOf(operands.back().value) != 0;
    }
    if (auto aux = dyn_cast<attn::AuxOp>(op)) {
      map[aux.getResult()] = readScoreTensor(ir, params_, aux, operands, lastIndices(ir, params_, aux));
      continue;
    }
    if (isa<attn::IndexOp>(op)) {
      map[op.getResult(0)] = scoreIndex(ir, operands[0]);
      continue;
    }
    if (isa<attn::RemainderOp>(op)) {
      map[op.getResult(0)] = scoreRemainder(ir, operands[0], operands[1]);
      continue;
    }
    // Everything else is elementwise: the same operation on wider types.
    IRMapping mapping;
    for (auto [from, to] : llvm::zip(op.getOperands(), operands))
      mapping.map(from, varying && !lanesOf(to.value) ? ir.splat(to, lanes).value : to.value);
    mlir::Operation *clone = ir.builder.clone(op, mapping);
    if (varying)
      for (Value result : clone->getResults())
        result.setType(ir.vec(result.getType(), lanes));
    map[op.getResult(0)] = ir.wrap(clone->getResult(0));
  }
  return {s, {}, {}};
}

namespace softmax {

Val reference(Ir &ir, Val m) {
  return ir.select(m == ir.negativeInfinity(m.type()), ir.constant(m.type(), 0), m);
}

Finish finish(Ir &ir, Val m, Val l, Val empty, const std::optional<Sink> &sink) {
  if (sink) {
    Val top = ir.fmax(m, sink->logit);
    Val base = reference(ir, top);
    Val scale = ir.exp2(m - base); // exactly 1 where the sink is not the largest
    Val all = ir.fma(l, scale, ir.exp2(sink->logit - base));
    const Finish with = finish(ir, top, all, empty);
    Val without = finish(ir, m, l, empty).lse;
    return {with.factor * scale, ir.select(sink->in_lse, with.lse, without)};
  }
  Val zero = ir.constant(l.type(), 0), one = ir.constant(l.type(), 1);
  // Only a row without a key has l = 0: the largest score contributes 2^0. NaN is not 0 and stays NaN.
  Val is_empty = l == zero;
  Val safe = ir.select(is_empty, one, l);
  Val lse = (reference(ir, m) + ir.log2(safe)) * kLn2;
  return {ir.select(is_empty, zero, ir.rcp(safe)), ir.select(is_empty, empty, lse)};
}

} // namespace softmax
} // namespace flashplus
