// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm80_flash/math.h"

#include "ir/carried.h"
#include "ir/mma.h"

namespace flashplus::sm80_flash {

/// What makes a row's values probabilities, 2^(value * scale + minus), and their sum.
struct Math::Row {
  Val minus, sum;
};

Math::Math(ItemView &kernel) : k_(kernel), ir_(kernel.ir) {
  const Sm80FlashLayout &l = k_.l;
  // ldmatrix addresses. Q and V: lane -> row lane % 16, columns 8 (lane / 16). K is read as the column
  // operand: matrices 0 and 1 are the two column halves of keys 0-7, 2 and 3 those of keys 8-15. (In Q's
  // order one address would serve both, but an operand's two registers must be neighbours, and each would
  // have to be moved.)
  Val row16 = k_.lane % 16, half16 = k_.lane / 16;
  q_address_ = k_.shared(l.q(), (k_.warp_row + row16) * l.qPitch() + half16 * 16);
  v_address_ = k_.shared(l.v(), row16 * l.vPitch() + half16 * 16);
  Val key = k_.lane % 8 + half16 * 8, half8 = (k_.lane / 8) % 2;
  k_address_ = k_.shared(l.k(), key * l.kPitch() + half8 * 16);
  if (k_.c.spec.dropout)
    dropout_.emplace(ir_, k_.c.params, k_.lane, Axis::Rows);
}

Fragment Math::multiplyQK(Val stage) {
  const Sm80FlashLayout &l = k_.l;
  Val keys = stage ? ir_.offset(k_address_, stage) : k_address_;
  Fragment s = Fragment::filled(k_.s_layout, ir_.f32(0));
  for (int step = 0; step < l.dqk_pad / 16; ++step) {
    std::vector<Vals> a;
    for (int mf = 0; mf < l.m_frags; ++mf)
      a.push_back(gpu::loadMatrix4(ir_, ir_.offset(q_address_, mf * 16 * l.qPitch() + step * 32), false));
    for (int pair = 0; pair < s.layout.column_blocks / 2; ++pair) {
      Vals b = gpu::loadMatrix4(ir_, ir_.offset(keys, pair * 16 * l.kPitch() + step * 32), false);
      for (int mf = 0; mf < l.m_frags; ++mf)
        for (int n = 0; n < 2; ++n)
          accumulate(s, s.layout.block(mf, 2 * pair + n), a[mf], {b[2 * n], b[2 * n + 1]});
    }
  }
  return s;
}

/// Block of values from `at` on += a b.
void Math::accumulate(Fragment &f, int at, const Vals &a, const Vals &b) {
  auto block = f.values.begin() + at;
  Vals d = gpu::mma16816(ir_, k_.dtype, a, b, Vals(block, block + 4));
  std::copy(d.begin(), d.end(), block);
}

/// Row 0 of this thread's, worked out anew: as registers through the loop the rows would make others spill.
Val Math::firstRowAnew(Val thread) {
  return k_.first + (thread / 32) * (16 * k_.l.m_frags) + firstOfLane(Axis::Rows, thread % 32);
}

TileScores Math::scores(Vals products, Val key) {
  // Without a score nobody asks for rows.
  const bool anew = !isPlainScore(*k_.c.score) && !k_.l.hasRoomForShortCuts();
  Val thread = anew ? gpu::again(ir_, k_.thread) : k_.thread;
  Val from = anew ? firstRowAnew(thread) : k_.first + k_.warp_row + firstOfLane(Axis::Rows, k_.lane);
  Vals rows;
  for (int row = 0; row < k_.rows(); ++row)
    rows.push_back(ir_.min(from + FragmentLayout::offset(Axis::Rows, row), k_.last));
  Val column = firstOfLane(Axis::Columns, anew ? thread % 32 : k_.lane);
  ScoreTile tile = scoreTile(k_.s_layout, Axis::Rows, std::move(rows), key + column);
  tile.short_cuts = k_.l.hasRoomForShortCuts();
  return tileScores(ir_, k_.c.params, *k_.c.score, k_.item, k_.seq, tile, std::move(products),
                    k_.c.params.get("softmax_scale"));
}

/// -inf where the mask hides a key; negated where that gives the order of the scores.
Fragment Math::masked(Fragment s, Val key, const TileExponents &exponents) {
  return carry::ifElse(
      ir_, k_.mask.needsMask(k_.first, k_.last, key, k_.l.tile_n) | exponents.negative,
      [&] {
        Fragment hidden = s;
        // Rows past the last one see what they like.
        Val thread = gpu::again(ir_, k_.thread);
        Val column = key + firstOfLane(Axis::Columns, thread), from = firstRowAnew(thread);
        for (int row = 0; row < k_.rows(); ++row) {
          Val query = from + FragmentLayout::offset(Axis::Rows, row);
          Val lo = k_.c.spec.bounded_left ? k_.mask.lo(query) - column : Val{},
              hi = k_.mask.hi(query) - column;
          hideKeys(hidden, Axis::Rows, row, lo, hi, exponents.sign);
        }
        return hidden;
      },
      [&] { return s; });
}

/// Takes the maxima of a tile into the state, and scales what is summed in it so far where one moved. That is
/// in its own branch, so that no factor is kept until the products with V.
std::vector<Math::Row> Math::raiseMaxima(const Fragment &s, const TileExponents &exponents,
                                         softmax::State &state) {
  std::vector<Row> rows;
  Vals factors;
  Val moved, one = ir_.f32(1);
  for (int row = 0; row < k_.rows(); ++row) {
    const auto [reference, alpha] =
        softmax::raise(ir_, s, Axis::Rows, row, /*chains=*/2, exponents, state.max[row]);
    factors.push_back(alpha);
    Val differs = alpha != one;
    moved = moved ? moved | differs : differs;
    rows.push_back({exponents.minus(reference, row), {}});
  }
  state = carry::ifElse(
      ir_, gpu::anyLane(ir_, moved),
      [&] {
        softmax::State scaled = state;
        for (int row = 0; row < k_.rows(); ++row) {
          scaled.sum[row] = scaled.sum[row] * factors[row];
          scaleLine(scaled.o, Axis::Rows, row, factors[row]);
        }
        return scaled;
      },
      [&] { return state; });
  return rows;
}

/// Which probabilities of the tile that begins at `key` are kept; none without dropout, where all are.
Math::Kept Math::kept(Val key) {
  if (!dropout_)
    return std::nullopt;
  return dropout_->draw(k_.s_layout, k_.item.batch, k_.item.head, k_.first + k_.warp_row, key);
}

/// Probabilities of 16 keys as one A operand. Each pair is packed as soon as it is there.
Vals Math::probabilities(const Fragment &s, Val scale, std::vector<Row> &rows, const Kept &kept,
                         int row_block, int step) {
  Vals a;
  for (int reg = 0; reg < 4; ++reg) {
    const std::array<int, 2> pair = s.layout.operandA(row_block, step, reg);
    Row &row = rows[size_t(s.layout.lineOf(Axis::Rows, pair[0]))];
    Val p[2];
    for (int e = 0; e < 2; ++e)
      p[e] = ir_.exp2(ir_.fma(s.values[size_t(pair[e])], scale, row.minus));
    Val both = p[0] + p[1];
    row.sum = row.sum ? row.sum + both : both;
    Val packed = gpu::pack(ir_, k_.dtype, p[0], p[1]);
    a.push_back(kept ? packed & kept->ofPair(pair) : packed);
  }
  return a;
}

/// Values -> O and the sums.
softmax::State Math::multiplyPV(const Fragment &s, const TileExponents &exponents, const Kept &kept,
                                softmax::State state, Val stage) {
  const Sm80FlashLayout &l = k_.l;
  Val values = stage ? ir_.offset(v_address_, stage) : v_address_;
  std::vector<Row> rows = raiseMaxima(s, exponents, state);
  for (int step = 0; step < l.tile_n / 16; ++step) {
    std::vector<Vals> a;
    for (int mf = 0; mf < l.m_frags; ++mf)
      a.push_back(probabilities(s, exponents.scale, rows, kept, mf, step));
    for (int pair = 0; pair < state.o.layout.column_blocks / 2; ++pair) {
      Vals b = gpu::loadMatrix4(ir_, ir_.offset(values, step * 16 * l.vPitch() + pair * 32), true);
      for (int mf = 0; mf < l.m_frags; ++mf)
        for (int n = 0; n < 2; ++n)
          accumulate(state.o, state.o.layout.block(mf, 2 * pair + n), a[mf], {b[2 * n], b[2 * n + 1]});
    }
  }
  for (int row = 0; row < k_.rows(); ++row)
    state.sum[row] = state.sum[row] + rows[row].sum;
  return state;
}

softmax::State Math::update(Fragment products, Val key, const softmax::State &state, Val stage) {
  const TileScores scored = scores(std::move(products.values), key);
  const TileExponents exponents(ir_, scored);
  const Fragment s = masked({k_.s_layout, scored.values}, key, exponents);
  return multiplyPV(s, exponents, kept(key), state, stage);
}

} // namespace flashplus::sm80_flash
