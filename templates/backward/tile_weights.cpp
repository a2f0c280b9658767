// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/tile_weights.h"

#include "templates/common/score.h"

namespace flashplus {

namespace {

/// -lse, with what the scores of query line `line` have in common.
Val exponentOfLine(Ir &ir, const TileScores &scores, int line, Val lse) {
  Val minus = lse * -1.0; // as the sign of the fused operation's operand
  if (!scores.shift.empty())
    minus = ir.fma(scores.shift[size_t(line)], ir.f32(softmax::kLog2E), minus);
  return minus;
}

/// The scores of query line `line` alone.
ScoreTile lineOf(const ScoreTile &tile, const FragmentLayout &layout, Axis queries, int line) {
  ScoreTile one{{tile.rows[size_t(line)]}, tile.key, {}, /*short_cuts=*/false};
  for (int i = 0; i < layout.count(across(queries)); ++i)
    one.elements.push_back({0, tile.elements[size_t(layout.at(queries, line, i))].offset});
  return one;
}

} // namespace

TileWeights tileWeights(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                        const ScoreTile &tile, Fragment products, LineValue lse) {
  Ir &ir = c.ir;
  Val softmax_scale = c.params.get("softmax_scale");
  auto evaluate = [&](const ScoreTile &of, Vals s) {
    return tileScores(ir, c.params, *c.score, item, sequence, of, std::move(s), softmax_scale);
  };
  const FragmentLayout layout = products.layout;
  const int lines = layout.count(queries), length = layout.count(across(queries));
  TileWeights w{std::move(products), {layout, {}}};
  if (!hasSlope(*c.score)) {
    const TileScores scores = evaluate(tile, std::move(w.p.values));
    w.p.values = scores.values;
    Val scale = scores.factor * softmax::kLog2E;
    for (int line = 0; line < lines; ++line) {
      Val minus = exponentOfLine(ir, scores, line, lse(line));
      for (int i = 0; i < length; ++i) {
        Val &x = w.p.at(queries, line, i);
        x = ir.exp2(ir.fma(x, scale, minus));
      }
    }
    return w;
  }
  // Line by line, so that scores and slopes of one line at most are alive beside p and h.
  w.h.values.resize(size_t(layout.size()));
  for (int line = 0; line < lines; ++line) {
    Vals s;
    for (int i = 0; i < length; ++i)
      s.push_back(w.p.at(queries, line, i));
    const TileScores scores = evaluate(lineOf(tile, layout, queries, line), std::move(s));
    Val scale = scores.factor * softmax::kLog2E, minus = exponentOfLine(ir, scores, 0, lse(line));
    for (int i = 0; i < length; ++i) {
      Val p = ir.exp2(ir.fma(scores.values[size_t(i)], scale, minus));
      w.p.at(queries, line, i) = p;
      w.h.at(queries, line, i) = ir.select(p == 0.0, ir.f32(0), p * scores.slopes[size_t(i)]);
    }
  }
  return w;
}

void clearOutside(Fragment &f, Axis axis, int line, Val lo, Val hi) {
  Ir &ir = *hi.ir;
  for (int i = 0; i < f.lines(across(axis)); ++i) {
    Val at = ir.i32(FragmentLayout::offset(across(axis), i));
    Val inside = lo ? (at >= lo) & (at < hi) : at < hi;
    Val &x = f.at(axis, line, i);
    x = ir.select(inside, x, ir.f32(0));
  }
}

void clearOutside(TileWeights &w, Axis axis, int line, Val lo, Val hi) {
  clearOutside(w.p, axis, line, lo, hi);
  if (!w.h.values.empty())
    clearOutside(w.h, axis, line, lo, hi);
}

Fragment dropGradient(const KeptElements &kept, Val scale, Fragment dp) {
  for (int x = 0; x < dp.layout.size(); ++x)
    dp.values[size_t(x)] = kept.keep(x, dp.values[size_t(x)]) * scale;
  return dp;
}

Fragment subtractDelta(const Fragment &weights, Axis queries, Fragment dp, LineValue delta) {
  for (int line = 0; line < dp.lines(queries); ++line) {
    Val d = delta(line);
    for (int i = 0; i < dp.lines(across(queries)); ++i) {
      Val &x = dp.at(queries, line, i);
      x = weights.at(queries, line, i) * (x - d);
    }
  }
  return dp;
}

void addScoreTerms(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                   const ScoreTile &tile, const Fragment &products, const Fragment &dp, LineValue lse,
                   LineValue delta, llvm::function_ref<LineKeys(int line)> keys, Val lane, ScoreSums &sums) {
  Ir &ir = c.ir;
  const FragmentLayout layout = products.layout;
  const int length = layout.count(across(queries));
  // Line by line, so that derivatives of one line at most are alive.
  for (int line = 0; line < layout.count(queries); ++line) {
    Vals s, g;
    for (int i = 0; i < length; ++i)
      s.push_back(products.at(queries, line, i));
    const TileScores scores =
        tileScores(ir, c.params, *c.score, item, sequence, lineOf(tile, layout, queries, line), std::move(s),
                   c.params.get("softmax_scale"));
    Val scale = scores.factor * softmax::kLog2E, minus = exponentOfLine(ir, scores, 0, lse(line));
    Val d = delta(line);
    const auto [lo, hi] = keys(line);
    Vals counts;
    for (int i = 0; i < length; ++i) {
      Val p = ir.exp2(ir.fma(scores.values[size_t(i)], scale, minus));
      Val at = ir.i32(FragmentLayout::offset(across(queries), i));
      Val inside = lo ? (at >= lo) & (at < hi) : at < hi;
      counts.push_back(inside & (p != 0.0)); // a derivative may be anything where it is not so
      g.push_back(p * (dp.at(queries, line, i) - d));
    }
    addTerms(ir, c.params, sums, scores.derivatives, length, lane, [&](const ScoreDerivative &by, int i) {
      return ir.select(counts[size_t(i)], g[size_t(i)] * by.values[size_t(i)], ir.f32(0));
    });
  }
}

} // namespace flashplus
