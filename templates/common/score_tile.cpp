// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/score_tile.h"

#include "ir/dialect/Attn.h"
#include "ir/warp.h"
#include "templates/common/score.h"
#include "templates/common/score_gradient.h"

using namespace mlir;

namespace flashplus {
namespace {

/// A value of the region for every element x, in row r at offset j: element[x] * factor + slope[r] * j +
/// base[r]. Parts that are null or empty count as 0, a null factor as 1. Per-row parts have one value if it
/// is the same for all rows.
struct Form {
  Vals element;
  Val factor;
  Vals slope, base;

  bool perRow() const { return element.empty() && slope.empty(); }
  bool uniform() const { return perRow() && base.size() == 1; }
};

/// tanh(x) / x = sum of c_i x^(2 i) for |x| <= 1/2: minimax of the relative error, 5.5e-7 (Remez exchange).
constexpr double kTanh[] = {0.9999994519679569, -0.3332630583704209, 0.13190200141782127,
                            -0.044400026252195315};
constexpr double kTanhRange = 0.5;

class Evaluator {
public:
  Evaluator(Ir &ir, const ParamReader &params, Block &block, const ScoreTile &tile)
      : ir_(ir), params_(params), block_(block), tile_(tile) {
    for (mlir::Operation &op : llvm::reverse(block))
      if (isa<attn::IndexOp, attn::RemainderOp, math::FloorOp>(op) ||
          (op.getNumResults() && of_index_.contains(op.getResult(0))))
        of_index_.insert(op.operand_begin(), op.operand_end());
  }

  /// Values of the region so far, and how many more short cuts may have a branch of their own: code doubles
  /// with each, and with two a tile of 128 x 128 no longer fits the registers.
  struct State {
    llvm::DenseMap<Value, Form> forms;
    int branches = 0;
    std::vector<ScoreDerivative> derivatives;
  };

  /// From operation `at` on to the yield. A short cut branches, with the rest of the region in either branch.
  TileScores run(Block::iterator at, State state) {
    for (; at != block_.end(); ++at) {
      mlir::Operation &op = *at;
      if (auto yield = dyn_cast<attn::YieldOp>(op))
        return finish(form(state, yield.getValue()), state, yield);
      if (isa<math::TanhOp, math::AbsFOp>(op)) {
        const Form operand = form(state, op.getOperand(0));
        if (isa<math::TanhOp>(op) && !operand.perRow())
          return tanh(op, operand, std::next(at), std::move(state));
        if (isa<math::AbsFOp>(op) && operand.element.empty() && !operand.slope.empty() && state.branches > 0)
          return abs(op, operand, std::next(at), std::move(state));
      }
      if (isScoreDerivative(op))
        state.derivatives.push_back(derivative(op, state));
      else
        state.forms[op.getResult(0)] = evaluate(op, state);
    }
    llvm_unreachable("a region ends with attn.yield");
  }

private:
  const ScoreTile::Element &at(int x) const { return tile_.elements[size_t(x)]; }
  int elements() const { return int(tile_.elements.size()); }
  int rows() const { return int(tile_.rows.size()); }
  static Val ofRow(const Vals &part, int row) { return part.size() == 1 ? part[0] : part[size_t(row)]; }

  Form form(const State &state, Value value) {
    if (value != block_.getArgument(attn::kKey))
      return state.forms.find(value)->second;
    Form keys;
    for (int x = 0; x < elements(); ++x)
      keys.element.push_back(tile_.key + at(x).offset);
    return keys;
  }

  // --- reading a form
  // ----------------------------------------------------------------------------------------
  Val base(const Form &f, int row) { return f.base.empty() ? ir_.f32(0) : ofRow(f.base, row); }

  /// The value of element x.
  Val value(const Form &f, int x) {
    const auto [row, offset] = at(x);
    Val linear = f.base.empty() ? Val{} : ofRow(f.base, row);
    if (!f.slope.empty() && offset) {
      Val slope = ofRow(f.slope, row), j = ir_.f32(offset);
      linear = linear ? ir_.fma(slope, j, linear) : slope * j;
    }
    if (f.element.empty())
      return linear ? linear : ir_.f32(0);
    Val element = f.element[size_t(x)];
    if (linear.absent())
      return f.factor ? element * f.factor : element;
    return f.factor ? ir_.fma(element, f.factor, linear) : element + linear;
  }

  Form perElement(const Form &f) {
    if (!f.element.empty() && f.factor.absent() && f.slope.empty() && f.base.empty())
      return f;
    Form all;
    for (int x = 0; x < elements(); ++x)
      all.element.push_back(value(f, x));
    return all;
  }

  // --- arithmetic on forms
  // -----------------------------------------------------------------------------------
  template <class F> Vals combine(const Vals &a, const Vals &b, F op) {
    Vals result;
    for (size_t row = 0; row < std::max(a.size(), b.size()); ++row)
      result.push_back(op(ofRow(a, int(row)), ofRow(b, int(row))));
    return result;
  }
  Vals sum(const Vals &a, const Vals &b) {
    if (a.empty() || b.empty())
      return a.empty() ? b : a;
    return combine(a, b, [](Val x, Val y) { return x + y; });
  }

  /// Times what is the same for the elements of a row.
  Form scaled(Form f, const Vals &by) {
    auto times = [](Val x, Val y) { return x * y; };
    if (!f.element.empty()) {
      if (by.size() == 1)
        f.factor = f.factor ? f.factor * by[0] : by[0];
      else
        for (int x = 0; x < elements(); ++x)
          f.element[size_t(x)] = f.element[size_t(x)] * ofRow(by, at(x).row);
    }
    f.slope = f.slope.empty() ? f.slope : combine(f.slope, by, times);
    f.base = f.base.empty() ? f.base : combine(f.base, by, times);
    return f;
  }
  Form negated(const Form &f) { return scaled(f, {ir_.f32(-1)}); }

  Form added(Form a, Form b) {
    if (a.element.empty())
      std::swap(a, b);
    if (!b.element.empty()) { // one of the factors must go
      Form plain{a.element, a.factor, {}, {}};
      for (int x = 0; x < elements(); ++x) {
        Val other = b.element[size_t(x)], own = value(plain, x);
        a.element[size_t(x)] = b.factor ? ir_.fma(other, b.factor, own) : own + other;
      }
      a.factor = {};
    }
    a.slope = sum(a.slope, b.slope);
    a.base = sum(a.base, b.base);
    return a;
  }

  // --- operations
  // --------------------------------------------------------------------------------------------
  Form evaluate(mlir::Operation &op, const State &state) {
    if (auto scalar = dyn_cast<attn::ScalarOp>(op))
      return {{}, {}, {}, {params_.get("scalar", int(scalar.getSlot()))}};
    if (auto aux = dyn_cast<attn::AuxOp>(op))
      return read(aux, state);
    if (isa<arith::SIToFPOp>(op) && op.getOperand(0) == block_.getArgument(attn::kKey) &&
        !of_index_.contains(op.getResult(0)))
      return {{}, {}, {ir_.f32(1)}, {ir_.toFloat(tile_.key)}};
    std::vector<Form> in;
    bool per_row = true;
    for (Value operand : op.getOperands()) {
      in.push_back(form(state, operand));
      per_row &= in.back().perRow();
    }
    if (!per_row && !of_index_.contains(op.getResult(0))) {
      if (isa<arith::AddFOp>(op))
        return added(in[0], in[1]);
      if (isa<arith::SubFOp>(op))
        return added(in[0], negated(in[1]));
      if (isa<arith::NegFOp>(op))
        return negated(in[0]);
      if (isa<arith::MulFOp>(op) && (in[0].perRow() || in[1].perRow()))
        return in[0].perRow() ? scaled(in[1], in[0].base) : scaled(in[0], in[1].base);
      if (isa<arith::DivFOp>(op) && in[1].perRow()) {
        Vals inverse;
        for (Val divisor : in[1].base)
          inverse.push_back(ir_.f32(1) / divisor);
        return scaled(in[0], inverse);
      }
    }
    return elementwise(op, in, per_row);
  }

  /// The same operation once a row, or once an element; operands may be int32, in forms of elements or of a
  /// base only.
  Form elementwise(mlir::Operation &op, const std::vector<Form> &in, bool per_row) {
    size_t count = size_t(elements());
    if (per_row) {
      count = 1;
      for (const Form &f : in)
        count = std::max(count, f.base.size());
    }
    Form out;
    for (size_t i = 0; i < count; ++i) {
      IRMapping mapping;
      Val last;
      for (auto [from, f] : llvm::zip(op.getOperands(), in)) {
        last = per_row ? ofRow(f.base, int(i)) : value(f, int(i));
        mapping.map(from, last.value);
      }
      Val result;
      if (isa<attn::IndexOp>(op))
        result = scoreIndex(ir_, last);
      else if (isa<attn::RemainderOp>(op))
        result = scoreRemainder(ir_, ir_.wrap(mapping.lookup(op.getOperand(0))), last);
      else if (isa<arith::DivFOp>(op) && of_index_.contains(op.getResult(0)))
        result = quotient(ir_.wrap(mapping.lookup(op.getOperand(0))), last);
      else
        result = ir_.wrap(ir_.builder.clone(op, mapping)->getResult(0));
      (per_row ? out.base : out.element).push_back(result);
    }
    return out;
  }

  /// Rounded correctly, so that n / n is 1 and not a little less: the reciprocal's error is what is left of
  /// a, and is put right. The exact instruction is a subroutine, around which ptxas spills.
  Val quotient(Val a, Val b) {
    Val inverse = ir_.rcp(b), near = a * inverse;
    Val left = ir_.fma(near * -1.0, b, a);
    return ir_.select(left == left, ir_.fma(left, inverse, near), near); // infinite ones have nothing left
  }

  Form read(attn::AuxOp op, const State &state) {
    std::vector<Form> in;
    bool per_row = true;
    size_t count = 1;
    for (Value index : op.getOperands()) {
      in.push_back(form(state, index));
      per_row &= in.back().perRow();
      count = std::max(count, in.back().base.size());
    }
    const Vals last = lastIndices(ir_, params_, op);
    Form out;
    for (size_t i = 0; i < (per_row ? count : size_t(elements())); ++i) {
      Vals indices;
      for (const Form &f : in)
        indices.push_back(per_row             ? ofRow(f.base, int(i))
                          : f.element.empty() ? ofRow(f.base, at(int(i)).row)
                                              : f.element[i]);
      (per_row ? out.base : out.element).push_back(readScoreTensor(ir_, params_, op, indices, last));
    }
    return out;
  }

  ScoreDerivative derivative(mlir::Operation &op, const State &state) {
    ScoreDerivative d{&op, {}, {}};
    const Form by = form(state, derivativeOf(op));
    for (int x = 0; x < elements(); ++x)
      d.values.push_back(value(by, x));
    for (Value index : indicesOf(op)) {
      const Form f = form(state, index);
      Vals &at_dim = d.indices.emplace_back();
      for (int x = 0; x < (f.uniform() ? 1 : elements()); ++x)
        at_dim.push_back(f.element.empty() ? ofRow(f.base, at(x).row) : f.element[size_t(x)]);
    }
    return d;
  }

  // --- short cuts
  // --------------------------------------------------------------------------------------------
  /// run() on after `op`, with either form of its result.
  TileScores branch(Val exact, mlir::Operation &op, Block::iterator after, State state,
                    llvm::function_ref<Form()> exactly, llvm::function_ref<Form()> shortly) {
    --state.branches;
    auto rest = [&](llvm::function_ref<Form()> make) {
      State mine = state;
      mine.forms[op.getResult(0)] = make();
      TileScores scores = run(after, std::move(mine));
      Vals flat = std::move(scores.values);
      flat.push_back(scores.factor);
      for (int row = 0; row < rows(); ++row)
        flat.push_back(scores.shift.empty() ? ir_.f32(0) : scores.shift[size_t(row)]);
      flat.insert(flat.end(), scores.slopes.begin(), scores.slopes.end());
      return flat;
    };
    Vals flat = ir_.ifElse(
        gpu::anyLane(ir_, exact), [&] { return rest(exactly); }, [&] { return rest(shortly); });
    const auto values_end = flat.begin() + elements(), shift_end = values_end + 1 + rows();
    return {Vals(flat.begin(), values_end),
            *values_end,
            Vals(values_end + 1, shift_end),
            Vals(shift_end, flat.end()),
            {}};
  }

  TileScores tanh(mlir::Operation &op, Form x, Block::iterator after, State state) {
    if (x.element.empty() || !x.slope.empty() || !x.base.empty())
      x = perElement(x);
    Val factor = x.factor ? x.factor : ir_.f32(1);
    // With e^(-2x): infinite where tanh is -1, never where it is a difference of infinities.
    auto exactly = [&] {
      Val to_exponent = factor * (-2 * softmax::kLog2E);
      Form f{{}, ir_.f32(2), {}, {ir_.f32(-1)}};
      for (Val e : x.element)
        f.element.push_back(ir_.rcp(ir_.exp2(e * to_exponent) + 1.0));
      return f;
    };
    if (state.branches == 0) {
      state.forms[op.getResult(0)] = exactly();
      return run(after, std::move(state));
    }
    Val largest[4];
    for (int i = 0; i < elements(); ++i) {
      Val &chain = largest[i % 4], size = magnitude(x.element[size_t(i)]);
      chain = chain ? ir_.fmax(chain, size) : size;
    }
    for (int i = 1; i < 4; ++i)
      largest[0] = largest[i] ? ir_.fmax(largest[0], largest[i]) : largest[0];
    // The coefficients take the factor in: it must not push them past fp32's range. A NaN is one either way.
    Val factor2 = factor * factor;
    Val small = (largest[0] * magnitude(factor) <= kTanhRange) & (factor2 <= 0x1p36);
    return branch(!small, op, after, std::move(state), exactly, [&] {
      Form f = x;
      f.factor = factor * kTanh[0];
      Val c1 = factor2 * (kTanh[1] / kTanh[0]);
      Val c2 = factor2 * factor2 * (kTanh[2] / kTanh[0]),
          c3 = factor2 * factor2 * factor2 * (kTanh[3] / kTanh[0]);
      for (int i = 0; i < elements(); ++i) {
        Val u = f.element[size_t(i)] * f.element[size_t(i)];
        Val p = ir_.fma(u, ir_.fma(u, ir_.fma(u, c3, c2), c1), ir_.f32(1));
        f.element[size_t(i)] = f.element[size_t(i)] * p;
      }
      return f;
    });
  }

  TileScores abs(mlir::Operation &op, const Form &d, Block::iterator after, State state) {
    int last = 0;
    for (const ScoreTile::Element &e : tile_.elements)
      last = std::max(last, e.offset);
    Val changes = ir_.boolean(false);
    Vals sign;
    for (int row = 0; row < rows(); ++row) {
      Val first = base(d, row), end = ir_.fma(ofRow(d.slope, row), ir_.f32(last), first);
      changes = changes | !(first * end >= 0.0);
      sign.push_back(ir_.select(first + end < 0.0, ir_.f32(-1), ir_.f32(1)));
    }
    return branch(
        changes, op, after, std::move(state),
        [&] {
          Form f;
          for (int x = 0; x < elements(); ++x)
            f.element.push_back(magnitude(value(d, x)));
          return f;
        },
        [&] { return scaled(d, sign); });
  }

  Val magnitude(Val x) { return ir_.wrap(math::AbsFOp::create(ir_.builder, ir_.loc, x.value)); }

  // --- the end
  // -----------------------------------------------------------------------------------------------
  TileScores finish(Form f, const State &state, attn::YieldOp yield) {
    TileScores out;
    out.derivatives = state.derivatives;
    if (hasSlope(yield)) {
      const Form slope = form(state, yield.getSlope());
      for (int x = 0; x < elements(); ++x)
        out.slopes.push_back(value(slope, x));
    }
    for (int row = 0; row < rows() && !f.base.empty(); ++row)
      out.shift.push_back(ofRow(f.base, row));
    if (f.element.empty())
      f.element.assign(size_t(elements()), ir_.f32(0));
    out.factor = f.factor ? f.factor : ir_.f32(1);
    out.values = f.element;
    if (f.slope.empty())
      return out;
    // The slope is divided by the factor, which must not be 0; fp32 has room for a tiny one.
    Val tiny = ir_.f32(0x1p-100);
    Val sign = ir_.select(out.factor < 0.0, ir_.f32(-1), ir_.f32(1));
    out.factor = ir_.fmax(out.factor * sign, tiny) * sign;
    Vals slope;
    for (Val s : f.slope)
      slope.push_back(s / out.factor);
    for (int x = 0; x < elements(); ++x)
      if (const auto [row, offset] = at(x); offset)
        out.values[size_t(x)] = ir_.fma(ofRow(slope, row), ir_.f32(offset), out.values[size_t(x)]);
    return out;
  }

  Ir &ir_;
  const ParamReader &params_;
  Block &block_;
  /// Values that an fp32 index, a `floor` or a remainder is worked out from. They are computed as the text
  /// says, one by one: an index is rounded towards zero, so that a unit of the last place can make it another
  /// one.
  llvm::DenseSet<Value> of_index_;
  const ScoreTile &tile_;
};

} // namespace

TileScores tileScores(Ir &ir, const ParamReader &params, Region &region, const WorkItem &item,
                      const Sequence &sequence, const ScoreTile &tile, Vals products, Val softmax_scale) {
  Block &block = region.front();
  Evaluator::State state;
  state.branches = tile.short_cuts ? 1 : 0;
  const Val args[attn::kNumScoreArgs] = {{}, item.batch, item.head,      item.head_k,
                                         {}, {},         sequence.q_len, sequence.k_len};
  for (int i = 0; i < attn::kNumScoreArgs; ++i)
    if (args[i])
      state.forms[block.getArgument(i)] = {{}, {}, {}, {args[i]}};
  state.forms[block.getArgument(attn::kScore)] = {std::move(products), softmax_scale, {}, {}};
  state.forms[block.getArgument(attn::kQuery)] = {{}, {}, {}, tile.rows};
  if (!tile.heads.empty())
    state.forms[block.getArgument(attn::kHead)] = {{}, {}, {}, tile.heads};
  return Evaluator(ir, params, block, tile).run(block.begin(), std::move(state));
}

TileExponents::TileExponents(Ir &ir, const TileScores &scores) : ir_(ir) {
  negative = scores.factor < 0.0;
  sign = ir.select(negative, ir.f32(-1), ir.f32(1));
  scale = ir.fmax(scores.factor * sign * softmax::kLog2E, ir.f32(0x1p-100));
  for (Val s : scores.shift)
    shift_.push_back(s * softmax::kLog2E);
}

Val TileExponents::score(Val value, int row) const {
  return shift_.empty() ? value * scale : ir_.fma(value, scale, shift_[size_t(row)]);
}

Val TileExponents::minus(Val reference, int row) const {
  // A sign of the fused operation's operand; 0 - reference would be an addition, after which ptxas 13.0 no
  // longer overlaps one row's maximum with another's exponentials (2 % of a Hopper kernel).
  return shift_.empty() ? reference * -1.0 : shift_[size_t(row)] - reference;
}

} // namespace flashplus
