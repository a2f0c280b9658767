// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm80_backward_kv/math.h"

#include "ir/carried.h"

namespace flashplus::sm80_backward_kv {
namespace {

/// Values of the thread's columns: two neighbours a block of columns, read together.
class ColumnValues {
public:
  ColumnValues(Ir &ir, Val first) : ir_(ir), first_(first) {}
  Val operator()(int line) {
    if (line / 2 != block_) {
      block_ = line / 2;
      pair_ = ir_.load(ir_.vec(ir_.f32(), 2),
                       ir_.offset(first_, FragmentLayout::offset(Axis::Columns, 2 * block_) * 4), 8);
    }
    return ir_.wrap(mlir::vector::ExtractOp::create(ir_.builder, ir_.loc, pair_.value, int64_t(line % 2)));
  }

private:
  Ir &ir_;
  Val first_, pair_;
  int block_ = -1;
};

} // namespace

Math::Math(ItemView &kernel) : k_(kernel), ir_(kernel.ir) {
  const Sm80BackwardKVLayout &l = k_.l;
  Val rows = k_.part * l.partM(); // this part's queries of a tile
  keys_ = TileOperand::rows(ir_, k_.shared(l.k(), k_.warp_key * l.qkPitch()), l.qkPitch(), k_.lane);
  values_ = TileOperand::rows(ir_, k_.shared(l.v(), k_.warp_key * l.vPitch()), l.vPitch(), k_.lane);
  q_columns_ = TileOperand::columns(ir_, k_.shared(l.q(), rows * l.qkPitch()), l.qkPitch(), k_.lane);
  dout_columns_ = TileOperand::columns(ir_, k_.shared(l.dout(), rows * l.vPitch()), l.vPitch(), k_.lane);
  q_rows_ =
      TileOperand::rows(ir_, k_.shared(l.q(), k_.part * (l.dqk_pad / l.parts * 2)), l.qkPitch(), k_.lane);
  dout_rows_ =
      TileOperand::rows(ir_, k_.shared(l.dout(), k_.part * (l.dv_pad / l.parts * 2)), l.vPitch(), k_.lane);
  row_values_ = k_.shared(l.rowValues(), (rows + firstOfLane(Axis::Columns, k_.lane)) * 4);
  weights_at_ = k_.shared(l.weights(), k_.warp_key * (l.tile_m * 2) + k_.lane * 16);
  if (k_.c.spec.dropout)
    dropout_.emplace(ir_, k_.c.params, k_.lane, Axis::Columns);
}

/// 0 where the mask hides a key or there is no query.
TileWeights Math::masked(TileWeights w, Val query) {
  const Sm80BackwardKVLayout &l = k_.l;
  Val end = query + l.tile_m, last = ir_.min(end, k_.seq.q_len) - 1;
  return carry::ifElse(
      ir_, k_.mask.needsMask(query, last, k_.first, l.tile_n) | (end > k_.seq.q_len),
      [&] {
        TileWeights seen = w;
        Val thread = gpu::again(ir_, k_.thread); // else this is worked out before the loop and kept
        Val key =
            k_.first + thread / (32 * l.parts) * (16 * l.n_frags) + firstOfLane(Axis::Rows, thread % 32);
        Val from = query + thread / 32 % l.parts * l.partM() + firstOfLane(Axis::Columns, thread % 32);
        for (int row = 0; row < k_.s_layout.count(Axis::Rows); ++row) {
          Val own = key + FragmentLayout::offset(Axis::Rows, row);
          const Mask::Rows queries = k_.mask.queries(own, own);
          clearOutside(seen, Axis::Rows, row, k_.c.spec.bounded_right ? queries.begin - from : Val{},
                       queries.end - from);
        }
        return seen;
      },
      [&] { return w; });
}

Math::Weights Math::weights(Val head, Val query, Val stage) {
  const Sm80BackwardKVLayout &l = k_.l;
  auto staged = [&](const TileOperand &t, int bytes) { return stage ? t.shifted(stage * bytes) : t; };
  const Fragment zeros = Fragment::filled(k_.s_layout, ir_.f32(0));
  Fragment s = zeros, dp = zeros;
  multiplyTransposed(ir_, k_.dtype, s, keys_, staged(q_columns_, l.qStage()), l.dqk_pad);
  multiplyTransposed(ir_, k_.dtype, dp, values_, staged(dout_columns_, l.doutStage()), l.dv_pad);

  Val values = stage ? ir_.offset(row_values_, stage * l.rowValuesStage()) : row_values_;
  ColumnValues lse(ir_, values), delta(ir_, ir_.offset(values, int64_t(l.tile_m) * 4));
  WorkItem item = k_.item;
  item.head = item.head + head;
  Vals rows; // of the score alone
  Val from = query + k_.part * l.partM() + firstOfLane(Axis::Columns, k_.lane);
  for (int column = 0; column < s.lines(Axis::Columns); ++column)
    rows.push_back(ir_.min(from + FragmentLayout::offset(Axis::Columns, column), k_.seq.q_len - 1));
  Val key = k_.first + k_.warp_key + firstOfLane(Axis::Rows, k_.lane);
  TileWeights w = masked(tileWeights(k_.c, item, k_.seq, Axis::Columns,
                                     scoreTile(s.layout, Axis::Columns, rows, key), std::move(s), lse),
                         query);
  if (!dropout_) {
    Fragment ds = subtractDelta(w.ofScores(), Axis::Columns, std::move(dp), delta);
    return {std::move(w.p), std::move(ds)};
  }
  const KeptElements kept =
      dropout_->draw(k_.s_layout, item.batch, item.head, query + k_.part * l.partM(), k_.first + k_.warp_key);
  dp = dropGradient(kept, dropout_->scale(), std::move(dp));
  Fragment ds = subtractDelta(w.ofScores(), Axis::Columns, std::move(dp), delta);
  kept.apply(w.p); // dV gets the scale at the end
  return {std::move(w.p), std::move(ds)};
}

/// Weights -> shared memory at `at`, as left operands of all parts.
void Math::exchange(int at, const Fragment &weights) {
  const Sm80BackwardKVLayout &l = k_.l;
  const LeftOperands a = leftOperands(weights, k_.dtype);
  const int steps = l.partM() / 16;
  Val to = ir_.offset(ir_.offset(weights_at_, k_.part * (steps * 512)), int64_t(at));
  for (int nf = 0; nf < l.n_frags; ++nf)
    for (int step = 0; step < steps; ++step) {
      Val four = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
      for (int reg = 0; reg < 4; ++reg)
        four = ir_.wrap(mlir::vector::InsertOp::create(
            ir_.builder, ir_.loc, a[size_t(nf)][size_t(step)][size_t(reg)].value, four.value, int64_t(reg)));
      ir_.store(four, ir_.offset(to, (nf * (l.tile_m / 16) + step) * 512), 16);
    }
}

/// Those of 16 queries, from either part.
LeftOperands Math::exchanged(int at, int step) {
  const Sm80BackwardKVLayout &l = k_.l;
  LeftOperands a;
  for (int nf = 0; nf < l.n_frags; ++nf) {
    Val four = ir_.load(ir_.vec(ir_.i32(), 4),
                        ir_.offset(weights_at_, at + (nf * (l.tile_m / 16) + step) * 512), 16);
    Vals registers;
    for (int reg = 0; reg < 4; ++reg)
      registers.push_back(
          ir_.wrap(mlir::vector::ExtractOp::create(ir_.builder, ir_.loc, four.value, int64_t(reg))));
    a.push_back({std::move(registers)});
  }
  return a;
}

void Math::add(Sums &sums, Val head, Val query, Val stage) {
  const Sm80BackwardKVLayout &l = k_.l;
  auto staged = [&](const TileOperand &t, int bytes) { return stage ? t.shifted(stage * bytes) : t; };
  const Weights w = weights(head, query, stage);
  const TileOperand dout = staged(dout_rows_, l.doutStage()), q = staged(q_rows_, l.qStage());
  if (l.parts == 1) {
    multiply(ir_, k_.dtype, sums.dv, leftOperands(w.p, k_.dtype), dout);
    multiply(ir_, k_.dtype, sums.dk, leftOperands(w.ds, k_.dtype), q);
    return;
  }
  exchange(0, w.p);
  exchange(l.weightsOfDS(), w.ds);
  gpu::barrier(ir_);
  for (int step = 0; step < l.tile_m / 16; ++step)
    multiply(ir_, k_.dtype, sums.dv, exchanged(0, step), dout, step);
  for (int step = 0; step < l.tile_m / 16; ++step)
    multiply(ir_, k_.dtype, sums.dk, exchanged(l.weightsOfDS(), step), q, step);
}

} // namespace flashplus::sm80_backward_kv
