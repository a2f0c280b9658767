// SPDX-License-Identifier: BSD-3-Clause
// A math warpgroup of sm90.backward_q. Its 64 query rows are a fragment of wgmma's
// (templates/common/fragment_layout.h); a thread has two of them.
#include "ir/wgmma.h"
#include "templates/backward/rows/row_values.h"
#include "templates/backward/sm90_backward_q/kernel.h"
#include "templates/backward/sm90_pair/roles.h"
#include "templates/backward/sm90_pair/sum_rows.h"
#include "templates/backward/tile_weights.h"

#include <optional>

namespace flashplus::sm90_backward_q {
namespace {

using gpu::InFlight;

struct Progress {
  Fragment dq;
  Positions at;
  void fields(auto &&each) { each(dq, at); }
};

class Math {
public:
  Math(Rings &rings, Val warpgroup)
      : r_(rings), c_(rings.c), ir_(rings.ir), l_(rings.l), warpgroup_(warpgroup),
        lane_(rings.thread % 32), s_layout_{1, l_.tile_n / 8}, dq_layout_{1, l_.dqk / 8},
        turns_(ir_, l_.pingpong, l_.shares(), warpgroup) {
    if (c_.spec.dropout)
      dropout_.emplace(ir_, c_.params, lane_, Axis::Rows);
  }

  Positions item(const Item &item, Positions at);

private:
  /// LSEs in base 2 and deltas of the thread's rows.
  struct RowsOf {
    Vals numbers, lse, delta;
  };
  RowsOf readRows(const Item &item);
  Progress keyLoop(const Item &item, const Progress &start);
  void add(const Item &item, const RowsOf &rows, Progress &now, Val tile);
  InFlight multiply(int which, const Positions &at);
  Fragment masked(const Item &item, Fragment p, Val key);

  Val ownRow() { return warpgroup_ * 64 + r_.thread / 32 % 4 * 16; } ///< The warp's first one in the tile.

  Rings &r_;
  EmitContext &c_;
  Ir &ir_;
  const Sm90BackwardQLayout &l_;
  Val warpgroup_; ///< 0 to shares().math - 1
  Val lane_;
  const FragmentLayout s_layout_, dq_layout_;
  Turns turns_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

Positions Math::item(const Item &item, Positions at) {
  const Progress start{Fragment::filled(dq_layout_, ir_.f32(0)), at};
  const Progress end = carry::ifElse(
      ir_, item.has_keys, [&] { return keyLoop(item, start); }, [&] { return start; });
  ir_.ifThen(item.present, [&] {
    storeSumRows(c_, item.seq, Operand::DQ, item.work.head, end.dq, c_.params.get("softmax_scale"),
                 item.first + ownRow() + firstOfLane(Axis::Rows, lane_), item.last, lane_);
  });
  return end.at;
}

Math::RowsOf Math::readRows(const Item &item) {
  const RowValues values(ir_, c_.params, item.seq, item.work.head);
  Val from = item.first + ownRow() + firstOfLane(Axis::Rows, lane_);
  RowsOf rows;
  for (int row = 0; row < s_layout_.count(Axis::Rows); ++row) {
    rows.numbers.push_back(ir_.min(from + FragmentLayout::offset(Axis::Rows, row), item.last));
    Val at = ir_.toI64(rows.numbers.back()) * 4;
    rows.lse.push_back(ir_.load(ir_.f32(), ir_.offset(values.lse(), at), 4));
    rows.delta.push_back(ir_.load(ir_.f32(), ir_.offset(values.delta(), at), 4));
  }
  return rows;
}

Progress Math::keyLoop(const Item &item, const Progress &start) {
  const RowsOf rows = readRows(item);
  r_.queries.ring().waitFull(start.at.queries);
  Progress end = item.walk.forAll(ir_, start, [&](Val tile, Progress now) {
    add(item, rows, now, tile);
    now.at.keys = r_.keys.next(now.at.keys);
    return now;
  });
  end.at.queries = r_.queries.next(end.at.queries);
  return end;
}

/// S (0) or dP (1): queries times keys.
InFlight Math::multiply(int which, const Positions &at) {
  const auto a_steps = r_.queries.rowSteps(which), b_steps = r_.keys.rowSteps(which);
  Val a = r_.queries.rowsDescriptor(at.queries, which, warpgroup_ * 64);
  Val b = r_.keys.rowsDescriptor(at.keys, which, ir_.i32(0));
  return gpu::productFromShared(ir_, c_.spec.dtype, l_.tile_n, int(a_steps.size()), a, a_steps, b, b_steps);
}

void Math::add(const Item &item, const RowsOf &rows, Progress &now, Val tile) {
  Val key = item.walk.key(tile);
  r_.keys.ring().waitFull(now.at.keys);
  r_.keys.clearTail(now.at.keys, item.seq, item.seq.k_len - key, r_.thread, 128 * l_.shares().math,
                    kTailBarrier);
  turns_.take();
  InFlight qk = multiply(0, now.at), ov = multiply(1, now.at);
  turns_.pass();
  auto lse = [&](int row) { return rows.lse[size_t(row)]; };
  auto delta = [&](int row) { return rows.delta[size_t(row)]; };
  // P itself is not needed.
  const ScoreTile scores =
      scoreTile(s_layout_, Axis::Rows, rows.numbers, key + firstOfLane(Axis::Columns, lane_));
  TileWeights w = tileWeights(c_, item.work, item.seq, Axis::Rows, scores,
                              {s_layout_, gpu::wait(ir_, 1, std::move(qk))}, lse);
  const Fragment h = masked(item, w.ofScores(), key);
  gpu::computeBeforeWait(ir_, h.values.back());
  Fragment dp{s_layout_, gpu::wait(ir_, 0, std::move(ov))};
  r_.queries.ring().release(now.at.queries, (lane_ == 0) & !item.walk.hasNext(tile));
  if (dropout_) {
    const KeptElements kept =
        dropout_->draw(s_layout_, item.work.batch, item.work.head, item.first + ownRow(), key);
    dp = dropGradient(kept, dropout_->scale(), std::move(dp));
  }
  const Fragment ds = subtractDelta(h, Axis::Rows, std::move(dp), delta);
  Vals a;
  for (int step = 0; step < l_.tile_n / 16; ++step)
    llvm::append_range(a, operandA(ds, c_.spec.dtype, 0, step));
  now.dq.values =
      gpu::wait(ir_, 0,
                gpu::productFromRegisters(ir_, c_.spec.dtype, l_.dqk, std::move(now.dq.values), a,
                                          r_.keys.columnsDescriptor(now.at.keys, 0), r_.keys.columnSteps()));
  r_.keys.ring().release(now.at.keys, lane_ == 0);
}

/// 0 where the mask hides a key, or there is none.
Fragment Math::masked(const Item &item, Fragment p, Val key) {
  Val first = item.first + warpgroup_ * 64;
  return carry::ifElse(
      ir_, item.mask.needsMask(first, ir_.min(first + 63, item.last), key, l_.tile_n),
      [&] {
        Fragment seen = p;
        Val thread = gpu::again(ir_, r_.thread); // else this is worked out before the loop and kept
        Val column = key + firstOfLane(Axis::Columns, thread % 32);
        Val from = item.first + thread / 32 * 16 + firstOfLane(Axis::Rows, thread % 32);
        for (int row = 0; row < seen.lines(Axis::Rows); ++row) {
          Val query =
              from + FragmentLayout::offset(Axis::Rows, row); // past the last one it sees what it likes
          clearOutside(seen, Axis::Rows, row, c_.spec.bounded_left ? item.mask.lo(query) - column : Val{},
                       item.mask.hi(query) - column);
        }
        return seen;
      },
      [&] { return p; });
}

} // namespace

void computeItems(Rings &rings, Val warp) {
  Math math(rings, warp / 4);
  forReceivedItems(rings.ir, rings.items, rings.start(), rings.thread % 32,
                   [&](const WorkItem &work, const Positions &at) {
                     return math.item(Item(rings.ir, rings.c, rings.l, work), at);
                   });
}

} // namespace flashplus::sm90_backward_q
