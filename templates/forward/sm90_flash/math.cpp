// SPDX-License-Identifier: BSD-3-Clause
// A math warpgroup of sm90.flash. Its 64 query rows are a fragment of wgmma's
// (templates/common/fragment_layout.h); a thread has two of them.
#include "ir/mma.h"
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "ir/wgmma.h"
#include "templates/common/key_rows.h"
#include "templates/common/softmax.h"
#include "templates/common/tile_dropout.h"
#include "templates/forward/sm90_flash/kernel.h"
#include "templates/forward/sm90_flash/store.h"

#include <optional>

namespace flashplus::sm90_flash {
namespace {

using gpu::InFlight;
using gpu::Position;

struct Computing {
  Positions at;
  ItemSlots::Received item;
  void fields(auto &&each) { each(at, item); }
};

struct State {
  softmax::State rows;
  Vals p; ///< The last tile's probabilities, packed; not yet multiplied with V.
  void fields(auto &&each) { each(rows, p); }
};

struct Progress {
  State state;
  Positions at;
  void fields(auto &&each) { each(state, at); }
};

class Math {
public:
  Math(Rings &rings, Val warpgroup)
      : r_(rings), c_(rings.c), ir_(rings.ir), l_(rings.l), warpgroup_(warpgroup), lane_(rings.thread % 32),
        row_in_tile_(warpgroup_ * 64 + rings.thread / 32 % 4 * 16 + firstOfLane(Axis::Rows, lane_)),
        s_layout_{1, l_.tile_n / 8}, o_layout_{1, l_.dvPad() / 8} {
    if (c_.spec.dropout)
      dropout_.emplace(ir_, c_.params, lane_, Axis::Rows);
  }

  void armPingpong();
  Positions item(const Item &item, Positions at);

private:
  static constexpr int kFirstTurn =
      1; ///< Named barriers, one a warpgroup: whose turn it is on the tensor cores.
  static constexpr int kTailBarrier = 8; ///< All math warpgroups.

  Progress keyLoop(const Item &item, Positions at);
  InFlight multiplyQK(Position q, Position k);
  InFlight multiplyPV(State &state, Position v);
  TileScores scores(const Item &item, Vals products, Val key);
  Fragment masked(const Item &item, Fragment s, Val key, const TileExponents &exponents);
  Vals softmaxTile(const Item &item, Fragment &s, Val key, softmax::State &rows);
  using Kept = std::optional<KeptElements>;
  Kept draw(const Item &item, Val key);
  void scaleO(Fragment &o, const Vals &alpha);
  Vals packP(const Fragment &s, const Kept &kept);
  void clearTail(const Item &item, Position v);

  Val rowInSequence(const Item &item, int row) {
    return item.first + row_in_tile_ + FragmentLayout::offset(Axis::Rows, row);
  }
  void takeTurn() {
    if (l_.pingpong)
      gpu::barrierSync(ir_, warpgroup_ + kFirstTurn, 256);
  }
  void passTurn() {
    if (l_.pingpong)
      gpu::barrierArrive(ir_, next_turn_, 256);
  }
  /// One arrival a warp.
  void release(gpu::Pipeline &ring, Position at) { ring.release(at, lane_ == 0); }

  Rings &r_;
  EmitContext &c_;
  Ir &ir_;
  const Sm90FlashLayout &l_;
  Val warpgroup_; ///< 0 to mathWarpgroups() - 1
  Val lane_, row_in_tile_;
  const FragmentLayout s_layout_, o_layout_;
  Val next_turn_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

void Math::armPingpong() {
  const int n = l_.mathWarpgroups();
  if (l_.pingpong) {
    Val last = warpgroup_ == n - 1;
    next_turn_ = ir_.select(last, ir_.i32(kFirstTurn), warpgroup_ + (kFirstTurn + 1));
    ir_.ifThen(last, [&] { passTurn(); }); // the first warpgroup begins
  }
}

Positions Math::item(const Item &item, Positions at) {
  const Progress end = carry::ifElse(
      ir_, item.has_keys, [&] { return keyLoop(item, at); },
      [&] {
        return Progress{{softmax::State::start(ir_, o_layout_), {}}, at};
      });
  ir_.ifThen(item.present, [&] {
    storeResults(c_, item, end.state.rows, lane_, [&](int row) { return rowInSequence(item, row); });
  });
  return end.at;
}

Progress Math::keyLoop(const Item &item, Positions at) {
  const KeyWalk &walk = item.walk;
  // The first tile: there is no O yet.
  r_.q.waitFull(at.q);
  r_.k.waitFull(at.k);
  InFlight first_qk = multiplyQK(at.q, at.k);
  const Kept first_kept = draw(item, walk.key(walk.first()));
  Fragment s{s_layout_, gpu::wait(ir_, 0, std::move(first_qk))};
  release(r_.k, at.k);
  at.k = r_.k.next(at.k);
  State state{softmax::State::start(ir_, o_layout_), {}};
  softmaxTile(item, s, walk.key(walk.first()), state.rows);
  state.p = packP(s, first_kept);

  Progress last = walk.forOthers(ir_, Progress{state, at}, [&](Val tile, Progress now) {
    takeTurn();
    r_.k.waitFull(now.at.k);
    InFlight qk = multiplyQK(now.at.q, now.at.k);
    r_.v.waitFull(now.at.v);
    InFlight pv = multiplyPV(now.state, now.at.v);
    passTurn();
    const Kept kept = draw(item, walk.key(tile)); // under the products
    Fragment t{s_layout_, gpu::wait(ir_, 1, std::move(qk))};
    release(r_.k, now.at.k);
    now.at.k = r_.k.next(now.at.k);
    softmax::State &rows = now.state.rows;
    const Vals alpha = softmaxTile(item, t, walk.key(tile), rows);
    gpu::computeBeforeWait(ir_, rows.sum[0] + rows.sum[1]);
    // P must not be packed, nor O scaled, while the product that uses them is in flight.
    rows.o.values = gpu::wait(ir_, 0, std::move(pv), &t.values);
    release(r_.v, now.at.v);
    now.at.v = r_.v.next(now.at.v);
    now.state.p = packP(t, kept);
    scaleO(rows.o, alpha);
    return now;
  });
  release(r_.q, last.at.q);
  last.at.q = r_.q.next(last.at.q);
  r_.v.waitFull(last.at.v);
  clearTail(item, last.at.v);
  last.state.rows.o.values = gpu::wait(ir_, 0, multiplyPV(last.state, last.at.v));
  release(r_.v, last.at.v);
  last.at.v = r_.v.next(last.at.v);
  last.state.p.clear();
  return last;
}

InFlight Math::multiplyQK(Position q, Position k) {
  llvm::SmallVector<int> q_steps, k_steps;
  for (int i = 0; i < l_.qkSteps(); ++i) {
    q_steps.push_back(i / 4 * l_.tile_m * 128 + i % 4 * 32);
    k_steps.push_back(i / 4 * l_.tile_n * 128 + i % 4 * 32);
  }
  Val a = gpu::descriptorRowsContiguousInK(ir_, r_.qTile(q) + warpgroup_ * (64 * 128));
  Val b = gpu::descriptorRowsContiguousInK(ir_, r_.kTile(k));
  return gpu::productFromShared(ir_, c_.spec.dtype, l_.tile_n, l_.qkSteps(), a, q_steps, b, k_steps);
}

InFlight Math::multiplyPV(State &state, Position v) {
  llvm::SmallVector<int> steps;
  for (int i = 0; i < l_.tile_n / 16; ++i)
    steps.push_back(i * 16 * 128);
  Val b = gpu::descriptorColumnsAreN(ir_, r_.vTile(v), l_.tile_n * 128);
  return gpu::productFromRegisters(ir_, c_.spec.dtype, l_.dvPad(), std::move(state.rows.o.values), state.p, b,
                                   steps);
}

TileScores Math::scores(const Item &item, Vals products, Val key) {
  Vals rows;
  for (int row = 0; row < s_layout_.count(Axis::Rows); ++row)
    rows.push_back(ir_.min(rowInSequence(item, row), item.last));
  ScoreTile tile = scoreTile(s_layout_, Axis::Rows, std::move(rows), key + firstOfLane(Axis::Columns, lane_));
  // Parts of a split problem are few and wait for memory; with a short cut, windows and D 256 would spill.
  tile.short_cuts = !c_.spec.sharesKeys() && !c_.spec.dropout;
  return tileScores(ir_, c_.params, *c_.score, item.work, item.seq, tile, std::move(products),
                    c_.params.get("softmax_scale"));
}

/// -inf where the mask hides a key; negated where that gives the order of the scores.
Fragment Math::masked(const Item &item, Fragment s, Val key, const TileExponents &exponents) {
  Val first = item.first + warpgroup_ * 64, column = key + firstOfLane(Axis::Columns, lane_);
  s.values = ir_.ifElse(
      item.mask.needsMask(first, ir_.min(first + 63, item.last), key, l_.tile_n) | exponents.negative,
      [&] {
        Fragment hidden = s;
        for (int row = 0; row < s.lines(Axis::Rows); ++row) {
          Val r = ir_.min(rowInSequence(item, row), item.last);
          Val lo = item.mask.lo(r) - column, hi = item.mask.hi(r) - column;
          hideKeys(hidden, Axis::Rows, row, lo, hi, exponents.sign);
        }
        return hidden.values;
      },
      [&] { return s.values; });
  return s;
}

/// O = alpha O, where some row of the warp needs it.
void Math::scaleO(Fragment &o, const Vals &alpha) {
  Val one = ir_.f32(1);
  o.values = ir_.ifElse(
      gpu::anyLane(ir_, (alpha[0] != one) | (alpha[1] != one)),
      [&] {
        Fragment scaled = o;
        scaleLines(scaled, Axis::Rows, alpha);
        return scaled.values;
      },
      [&] { return o.values; });
}

/// Products -> probabilities in place; returns what O has to be scaled by.
Vals Math::softmaxTile(const Item &item, Fragment &s, Val key, softmax::State &rows) {
  TileScores scored = scores(item, std::move(s.values), key);
  const TileExponents exponents(ir_, scored);
  s = masked(item, {s_layout_, scored.values}, key, exponents);
  Vals factors;
  for (int row = 0; row < s.lines(Axis::Rows); ++row) {
    const auto [reference, alpha] =
        softmax::raise(ir_, s, Axis::Rows, row, /*chains=*/4, exponents, rows.max[row]);
    factors.push_back(alpha);
    Val minus = exponents.minus(reference, row);
    Val sum[2] = {rows.sum[row] * alpha, {}};
    for (int i = 0; i < s.lines(Axis::Columns); ++i) {
      Val &x = s.at(Axis::Rows, row, i), &chain = sum[i % 2];
      x = ir_.exp2(ir_.fma(x, exponents.scale, minus));
      chain = chain ? chain + x : x;
    }
    rows.sum[row] = sum[0] + sum[1];
  }
  return factors;
}

/// Which probabilities of the tile are kept; none without dropout, where all are. What is drawn here is there
/// before the next wait.
Math::Kept Math::draw(const Item &item, Val key) {
  if (!dropout_)
    return std::nullopt;
  KeptElements kept = dropout_->draw(s_layout_, item.work.batch, item.work.head,
                                     item.first + (row_in_tile_ - lane_ / 4), key);
  kept.computeBeforeWait();
  return kept;
}

/// 0 for probabilities that are dropped; their sum has them.
Vals Math::packP(const Fragment &s, const Kept &kept) {
  Vals p;
  for (int step = 0; step < l_.tile_n / 16; ++step)
    llvm::append_range(p, kept ? kept->operandA(s, c_.spec.dtype, 0, step)
                               : operandA(s, c_.spec.dtype, 0, step));
  return p;
}

/// Keys past the sequence have P = 0, which does not help against an infinity or a NaN in V: where such rows
/// are not outside the tensor (TMA has zeros there), they are cleared before the last product, the one that
/// reads them.
void Math::clearTail(const Item &item, Position v) {
  Val valid = item.seq.k_len - item.walk.key(item.walk.last());
  ir_.ifThen(KeyRows{item.seq, Operand::V, item.work.head_k}.hasRowsBehind() & (valid < l_.tile_n), [&] {
    const int threads = 128 * l_.mathWarpgroups();
    Val zero = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
    Val tile = ir_.offset(ir_.offset(c_.scratch, v.stage * l_.vBytes()), int64_t(l_.v()));
    for (int slab = 0; slab < l_.vSlabs(); ++slab)
      ir_.forLoop(valid * 8 + r_.thread, ir_.i32(l_.tile_n * 8), ir_.i32(threads), [&](Val chunk) {
        ir_.store(zero, ir_.offset(ir_.offset(tile, chunk * 16), int64_t(slab) * l_.tile_n * 128), 16);
      });
    gpu::fenceAsyncShared(ir_);
    gpu::barrierSync(ir_, ir_.i32(kTailBarrier), threads);
  });
}

} // namespace

void computeItems(Rings &rings, Val warp) {
  Ir &ir = rings.ir;
  Math math(rings, warp / 4);
  math.armPingpong();
  // Each turn receives the next item while the present one's are done; the first has none.
  Val lane = rings.thread % 32;
  gpu::Pipeline &ring = rings.items.ring();
  const ItemSlots::Received first = rings.items.receive(ring.start(), lane);
  Positions at = rings.start();
  at.item = ring.next(at.item);
  carry::whileLoop(
      ir, Computing{at, first}, [](const Computing &now) { return now.item.valid != 0; },
      [&](const Computing &now) {
        Positions next = math.item(Item(ir, rings.c, rings.l, now.item.work), now.at);
        const ItemSlots::Received following = rings.items.receive(next.item, lane);
        next.item = ring.next(next.item);
        return Computing{next, following};
      });
}

} // namespace flashplus::sm90_flash
