// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/softmax.h"

namespace flashplus::softmax {

State State::start(Ir &ir, FragmentLayout o) {
  const size_t rows = size_t(o.count(Axis::Rows));
  return {Fragment::filled(o, ir.f32(0)), Vals(rows, ir.negativeInfinity(ir.f32())), Vals(rows, ir.f32(0))};
}

Raised raise(Ir &ir, const Fragment &s, Axis queries, int line, int chains, const TileExponents &exponents,
             Val &max) {
  auto larger = [&](Val a, Val b) { return ir.fmax(a, b); };
  Val highest = reduceInThread(s, queries, line, chains, larger);
  // A shift is this thread's own: it has the key of the thread's first element in it.
  highest = exponents.shifted() ? reduceAcrossLanes(queries, exponents.score(highest, line), larger)
                                : exponents.score(reduceAcrossLanes(queries, highest, larger), line);
  Val old = max;
  max = ir.fmax(old, highest);
  Val base = reference(ir, max);
  return {base, ir.exp2(old - base)};
}

Finish finishLine(Ir &ir, State &state, int line, Val empty, Val scale, const std::optional<Sink> &sink) {
  Val sum = reduceAcrossLanes(Axis::Rows, state.sum[size_t(line)], [](Val a, Val b) { return a + b; });
  const Finish result = finish(ir, state.max[size_t(line)], sum, empty, sink);
  scaleLine(state.o, Axis::Rows, line, scale ? result.factor * scale : result.factor);
  return result;
}

} // namespace flashplus::softmax
