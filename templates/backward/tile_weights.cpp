// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/tile_weights.h"

#include "templates/common/score.h"

namespace flashplus {

Fragment exponentials(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                      const ScoreTile &tile, Fragment products, LineValue lse) {
  Ir &ir = c.ir;
  const TileScores scores = tileScores(ir, c.params, *c.score, item, sequence, tile,
                                       std::move(products.values), c.params.get("softmax_scale"));
  Val scale = scores.factor * softmax::kLog2E;
  Fragment p{products.layout, scores.values};
  for (int line = 0; line < p.lines(queries); ++line) {
    // As the sign of the fused operation's operand.
    Val minus = lse(line) * -1.0;
    if (!scores.shift.empty())
      minus = ir.fma(scores.shift[size_t(line)], ir.f32(softmax::kLog2E), minus);
    for (int i = 0; i < p.lines(across(queries)); ++i) {
      Val &x = p.at(queries, line, i);
      x = ir.exp2(ir.fma(x, scale, minus));
    }
  }
  return p;
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

} // namespace flashplus
