// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/decode/math.h"

#include "ir/carried.h"
#include "ir/mma.h"

#include <algorithm>

namespace flashplus::decode {
namespace {

void multiply(Ir &ir, DType dtype, Fragment &f, int row_block, int column_block, const Vals &a, Val b0,
              Val b1) {
  auto block = f.values.begin() + f.layout.block(row_block, column_block);
  std::ranges::copy(gpu::mma16816(ir, dtype, a, {b0, b1}, Vals(block, block + 4)), block);
}

} // namespace

KernelView::KernelView(EmitContext &c)
    : c(c), ir(c.ir), l(DecodeLayout::of(c.spec, c.schedule)), dtype(c.spec.dtype),
      bytes(dtypeBytes(dtype)), s_layout{l.tile_n / 16, l.columnBlocks()}, o_layout{l.dv_pad / 16,
                                                                                    l.columnBlocks()} {
  thread = gpu::threadId(ir);
  lane = thread % 32;
  warp = gpu::shuffleFrom(ir, thread / 32, ir.i32(0)); // which tells the assembler that it is uniform
}

KernelView::Packed KernelView::packed(const Segment &segment, Val row) const {
  Val r = segment.item.m * l.tile_m + ir.max(ir.i32(0), ir.min(row, segment.rows - 1));
  Val query = r / segment.item.group;
  return {query, r - query * segment.item.group};
}

Math::Math(KernelView &kernel, const Segment &segment) : k_(kernel), ir_(kernel.ir), segment_(segment) {
  const DecodeLayout &l = k_.l;
  for (int line = 0; line < k_.s_layout.count(Axis::Columns); ++line) {
    const auto [query, head] =
        k_.packed(segment, firstOfLane(Axis::Columns, k_.lane) + FragmentLayout::offset(Axis::Columns, line));
    queries_.push_back(query);
    heads_.push_back(segment.item.head + head);
  }
  // A lane of a B operand has neighbours 2 (lane % 4) of row lane / 4, and those 8 columns further. Registers
  // of padding are zeros, as those of an item without rows.
  auto load = [&] {
    Vals all;
    for (int block = 0; block < l.columnBlocks(); ++block) {
      const auto [query, head] = k_.packed(segment, k_.lane / 4 + block * 8);
      const ParamReader &params = k_.c.params;
      Val element = ir_.toI64(query) * params.get("q_stride_s") + ir_.toI64(head) * params.get("q_stride_h");
      Val from = ir_.offset(segment.sequence.rows(Operand::Q, segment.item.head, k_.bytes),
                            element * k_.bytes + ir_.toI64(k_.lane % 4) * 4);
      for (int column = 0; column < l.dqk_pad; column += 8)
        all.push_back(column < l.dqk ? ir_.load(ir_.i32(), ir_.offset(from, column * k_.bytes), 4)
                                     : ir_.i32(0));
    }
    return all;
  };
  const Vals all = carry::ifElse(ir_, segment.rows > 0, load,
                                 [&] { return Vals(size_t(l.columnBlocks() * l.dqk_pad / 8), ir_.i32(0)); });
  for (int block = 0; block < l.columnBlocks(); ++block)
    q_.emplace_back(all.begin() + block * (l.dqk_pad / 8), all.begin() + (block + 1) * (l.dqk_pad / 8));
}

softmax::State Math::start() const {
  const size_t lines = size_t(k_.o_layout.count(Axis::Columns));
  return {Fragment::filled(k_.o_layout, ir_.f32(0)), Vals(lines, ir_.negativeInfinity(ir_.f32())),
          Vals(lines, ir_.f32(0))};
}

Fragment Math::products(const StepTile &keys) const {
  const DecodeLayout &l = k_.l;
  // One block's products wait for each other; two chains of them do not.
  const int chains = k_.s_layout.size() <= 8 && l.dqk_pad >= 32 ? 2 : 1;
  std::vector<Fragment> s(size_t(chains), Fragment::filled(k_.s_layout, ir_.f32(0)));
  for (int step = 0; step < l.dqk_pad / 16; ++step)
    for (int row_block = 0; row_block < k_.s_layout.row_blocks; ++row_block) {
      const Vals a = gpu::loadMatrix4(ir_, keys.at(ir_, row_block * 16, step * 32), false);
      for (int block = 0; block < l.columnBlocks(); ++block) {
        const Vals &q = q_[size_t(block)];
        multiply(ir_, k_.dtype, s[size_t(step % chains)], row_block, block, a, q[size_t(2 * step)],
                 q[size_t(2 * step + 1)]);
      }
    }
  for (int x = 0; chains == 2 && x < k_.s_layout.size(); ++x)
    s[0].values[size_t(x)] = s[0].values[size_t(x)] + s[1].values[size_t(x)];
  return std::move(s[0]);
}

/// -inf where the mask hides a key; negated where that gives the order of the scores.
Fragment Math::masked(Fragment s, Val key, const TileExponents &exponents) const {
  return carry::ifElse(
      ir_,
      segment_.mask.needsMask(segment_.first_row, segment_.last_row, key, k_.l.tile_n) | exponents.negative,
      [&] {
        Fragment hidden = s;
        Val own = key + firstOfLane(Axis::Rows, k_.lane);
        for (int line = 0; line < s.lines(Axis::Columns); ++line) {
          Val query = queries_[size_t(line)];
          hideKeys(hidden, Axis::Columns, line,
                   k_.c.spec.bounded_left ? segment_.mask.lo(query) - own : Val{},
                   segment_.mask.hi(query) - own, exponents.sign);
        }
        return hidden;
      },
      [&] { return s; });
}

Math::Weights Math::weights(Fragment products, Val tile, softmax::State state) const {
  Val key = tile * k_.l.tile_n;
  ScoreTile scored = scoreTile(k_.s_layout, Axis::Columns, queries_, key + firstOfLane(Axis::Rows, k_.lane));
  scored.heads = heads_;
  scored.short_cuts = k_.l.hasRoomForShortCuts();
  const TileScores scores = tileScores(ir_, k_.c.params, *k_.c.score, segment_.item, segment_.sequence,
                                       scored, std::move(products.values), k_.c.params.get("softmax_scale"));
  const TileExponents exponents(ir_, scores);
  Weights w{masked({k_.s_layout, scores.values}, key, exponents), std::move(state)};

  const int lines = w.p.lines(Axis::Columns);
  Vals factors, minus;
  Val moved;
  for (int line = 0; line < lines; ++line) {
    const auto [reference, alpha] =
        softmax::raise(ir_, w.p, Axis::Columns, line, /*chains=*/1, exponents, w.state.max[size_t(line)]);
    factors.push_back(alpha);
    minus.push_back(exponents.minus(reference, line));
    Val differs = alpha != 1.0;
    moved = moved ? moved | differs : differs;
  }
  w.state = carry::ifElse(
      ir_, gpu::anyLane(ir_, moved),
      [&] {
        softmax::State scaled = w.state;
        for (int line = 0; line < lines; ++line) {
          scaled.sum[size_t(line)] = scaled.sum[size_t(line)] * factors[size_t(line)];
          scaleLine(scaled.o, Axis::Columns, line, factors[size_t(line)]);
        }
        return scaled;
      },
      [&] { return w.state; });
  for (int line = 0; line < lines; ++line)
    for (int i = 0; i < w.p.lines(Axis::Rows); ++i) {
      Val &p = w.p.at(Axis::Columns, line, i);
      p = ir_.exp2(ir_.fma(p, exponents.scale, minus[size_t(line)]));
      w.state.sum[size_t(line)] = w.state.sum[size_t(line)] + p;
    }
  return w;
}

softmax::State Math::accumulate(Weights w, const StepTile &values) const {
  const DecodeLayout &l = k_.l;
  for (int keys = 0; keys < k_.s_layout.row_blocks; ++keys) {
    // An accumulator's two rows of 8 keys, packed and transposed, are the two registers of a right operand.
    std::vector<Vals> p;
    for (int block = 0; block < l.columnBlocks(); ++block) {
      const Val *x = &w.p.values[size_t(k_.s_layout.block(keys, block))];
      p.push_back({gpu::transposeMatrix(ir_, gpu::pack(ir_, k_.dtype, x[0], x[1])),
                   gpu::transposeMatrix(ir_, gpu::pack(ir_, k_.dtype, x[2], x[3]))});
    }
    for (int columns = 0; columns < k_.o_layout.row_blocks; ++columns) {
      const Vals a = gpu::loadMatrix4(ir_, values.at(ir_, keys * 16, columns * 32), true);
      for (int block = 0; block < l.columnBlocks(); ++block)
        multiply(ir_, k_.dtype, w.state.o, columns, block, a, p[size_t(block)][0], p[size_t(block)][1]);
    }
  }
  return std::move(w.state);
}

} // namespace flashplus::decode
