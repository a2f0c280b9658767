// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm80_backward_q/math.h"

#include "ir/carried.h"
#include "templates/backward/rows/row_values.h"
#include "templates/backward/tile_weights.h"

namespace flashplus::sm80_backward_q {

Math::Math(ItemView &kernel) : k_(kernel), ir_(kernel.ir) {
  const Sm80BackwardQLayout &l = k_.l;
  q_ = TileOperand::rows(ir_, k_.shared(l.q(), k_.warp_row * l.qkPitch()), l.qkPitch(), k_.lane);
  dout_ = TileOperand::rows(ir_, k_.shared(l.dout(), k_.warp_row * l.vPitch()), l.vPitch(), k_.lane);
  k_columns_ = TileOperand::columns(ir_, ir_.offset(k_.c.scratch, int64_t(l.k())), l.qkPitch(), k_.lane);
  v_columns_ = TileOperand::columns(ir_, ir_.offset(k_.c.scratch, int64_t(l.v())), l.vPitch(), k_.lane);
  k_rows_ = TileOperand::rows(ir_, ir_.offset(k_.c.scratch, int64_t(l.k())), l.qkPitch(), k_.lane);
  const RowValues values(ir_, k_.c.params, k_.seq, k_.item.head);
  Val from = k_.first + k_.warp_row + firstOfLane(Axis::Rows, k_.lane);
  for (int row = 0; row < k_.s_layout.count(Axis::Rows); ++row) {
    rows_.push_back(ir_.min(from + FragmentLayout::offset(Axis::Rows, row), k_.last));
    Val at = ir_.toI64(rows_.back()) * 4;
    lse_.push_back(ir_.load(ir_.f32(), ir_.offset(values.lse(), at), 4));
    delta_.push_back(ir_.load(ir_.f32(), ir_.offset(values.delta(), at), 4));
  }
  if (k_.c.spec.dropout)
    dropout_.emplace(ir_, k_.c.params, k_.lane, Axis::Rows);
}

/// 0 where the mask hides a key, or there is none.
Fragment Math::masked(Fragment p, Val key) {
  const Sm80BackwardQLayout &l = k_.l;
  return carry::ifElse(
      ir_, k_.mask.needsMask(k_.first, k_.last, key, l.tile_n),
      [&] {
        Fragment seen = p;
        Val thread = gpu::again(ir_, k_.thread); // else this is worked out before the loop and kept
        Val column = key + firstOfLane(Axis::Columns, thread % 32);
        Val from = k_.first + thread / 32 * (16 * l.m_frags) + firstOfLane(Axis::Rows, thread % 32);
        for (int row = 0; row < seen.lines(Axis::Rows); ++row) {
          Val query =
              from + FragmentLayout::offset(Axis::Rows, row); // past the last one it sees what it likes
          clearOutside(seen, Axis::Rows, row, k_.c.spec.bounded_left ? k_.mask.lo(query) - column : Val{},
                       k_.mask.hi(query) - column);
        }
        return seen;
      },
      [&] { return p; });
}

namespace {

/// `t` in buffer `stage`.
TileOperand staged(const TileOperand &t, Val stage, int bytes) {
  return stage ? t.shifted(stage * bytes) : t;
}

} // namespace

Math::Products Math::products(Val stage) {
  const Sm80BackwardQLayout &l = k_.l;
  const Fragment zeros = Fragment::filled(k_.s_layout, ir_.f32(0));
  Products made{zeros, zeros};
  multiplyTransposed(ir_, k_.dtype, made.s, q_, staged(k_columns_, stage, l.kStage()), l.dqk_pad);
  multiplyTransposed(ir_, k_.dtype, made.dp, dout_, staged(v_columns_, stage, l.vStage()), l.dv_pad);
  return made;
}

void Math::add(Fragment &dq, Val key, Val stage) {
  auto [s, dp] = products(stage);
  const ScoreTile tile = scoreTile(s.layout, Axis::Rows, rows_, key + firstOfLane(Axis::Columns, k_.lane));
  auto lse = [&](int row) { return lse_[size_t(row)]; };
  auto delta = [&](int row) { return delta_[size_t(row)]; };
  // P itself is not needed.
  const TileWeights w = tileWeights(k_.c, k_.item, k_.seq, Axis::Rows, tile, std::move(s), lse);
  if (dropout_) {
    const KeptElements kept =
        dropout_->draw(k_.s_layout, k_.item.batch, k_.item.head, k_.first + k_.warp_row, key);
    dp = dropGradient(kept, dropout_->scale(), std::move(dp));
  }
  const Fragment ds = subtractDelta(masked(w.ofScores(), key), Axis::Rows, std::move(dp), delta);
  multiply(ir_, k_.dtype, dq, leftOperands(ds, k_.dtype), staged(k_rows_, stage, k_.l.kStage()));
}

void Math::addScoreTerms(ScoreSums &sums, Val key, Val stage) {
  auto [s, dp] = products(stage);
  if (dropout_) {
    const KeptElements kept =
        dropout_->draw(k_.s_layout, k_.item.batch, k_.item.head, k_.first + k_.warp_row, key);
    dp = dropGradient(kept, dropout_->scale(), std::move(dp));
  }
  const ScoreTile tile = scoreTile(s.layout, Axis::Rows, rows_, key + firstOfLane(Axis::Columns, k_.lane));
  auto lse = [&](int row) { return lse_[size_t(row)]; };
  auto delta = [&](int row) { return delta_[size_t(row)]; };
  Val column = key + firstOfLane(Axis::Columns, k_.lane);
  Val from = k_.first + k_.warp_row + firstOfLane(Axis::Rows, k_.lane);
  // Rows past the last one repeat it, and have no keys here.
  auto keys = [&](int row) {
    Val query = from + FragmentLayout::offset(Axis::Rows, row);
    Val hi = ir_.select(query <= k_.last, k_.mask.hi(query), ir_.i32(0));
    return LineKeys{k_.c.spec.bounded_left ? k_.mask.lo(query) - column : Val{}, hi - column};
  };
  flashplus::addScoreTerms(k_.c, k_.item, k_.seq, Axis::Rows, tile, s, dp, lse, delta, keys, k_.lane, sums);
}

} // namespace flashplus::sm80_backward_q
