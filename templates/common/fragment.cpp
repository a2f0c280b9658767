// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/fragment.h"

#include "ir/mma.h"
#include "ir/warp.h"

namespace flashplus {

Val firstOfLane(Axis axis, Val lane) { return axis == Axis::Rows ? lane / 4 : lane % 4 * 2; }

Val reduceInThread(const Fragment &f, Axis axis, int line, int chains, Combine combine) {
  Vals chain(size_t(chains), Val{});
  for (int i = 0; i < f.lines(across(axis)); ++i) {
    Val &mine = chain[size_t(i % chains)];
    mine = mine ? combine(mine, f.at(axis, line, i)) : f.at(axis, line, i);
  }
  for (; chain.size() > 1; chain.resize(chain.size() / 2))
    for (size_t i = 0; i < chain.size() / 2; ++i)
      chain[i] = combine(chain[2 * i], chain[2 * i + 1]);
  return chain[0];
}

Val reduceAcrossLanes(Axis axis, Val x, Combine combine) {
  for (int lanes : FragmentLayout::lanesOfLine(axis))
    x = combine(x, gpu::shuffleXor(*x.ir, x, lanes));
  return x;
}

void scaleLines(Fragment &f, Axis axis, const Vals &factors) {
  for (int x = 0; x < f.layout.size(); ++x)
    f.values[size_t(x)] = f.values[size_t(x)] * factors[size_t(f.layout.lineOf(axis, x))];
}

void scaleLine(Fragment &f, Axis axis, int line, Val factor) {
  for (int i = 0; i < f.lines(across(axis)); ++i)
    f.at(axis, line, i) = f.at(axis, line, i) * factor;
}

void hideKeys(Fragment &s, Axis queries, int line, Val lo, Val hi, Val sign) {
  Ir &ir = *hi.ir;
  const Axis keys = across(queries);
  for (int i = 0; i < s.lines(keys); ++i) {
    Val at = ir.i32(FragmentLayout::offset(keys, i));
    Val seen = lo ? (at >= lo) & (at < hi) : at < hi;
    Val &x = s.at(queries, line, i);
    x = ir.select(seen, x * sign, ir.negativeInfinity(ir.f32()));
  }
}

Vals operandA(const Fragment &f, DType dtype, int row_block, int step) {
  Vals a;
  for (int reg = 0; reg < 4; ++reg) {
    const auto [low, high] = f.layout.operandA(row_block, step, reg);
    a.push_back(gpu::pack(*f.values[0].ir, dtype, f.values[size_t(low)], f.values[size_t(high)]));
  }
  return a;
}

ScoreTile scoreTile(const FragmentLayout &layout, Axis queries, Vals rows, Val key) {
  ScoreTile tile;
  tile.rows = std::move(rows);
  tile.key = key;
  for (int x = 0; x < layout.size(); ++x)
    tile.elements.push_back({layout.lineOf(queries, x),
                             FragmentLayout::offset(across(queries), layout.lineOf(across(queries), x))});
  return tile;
}

} // namespace flashplus
