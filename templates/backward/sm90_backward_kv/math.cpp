// SPDX-License-Identifier: BSD-3-Clause
// A math warpgroup of sm90.backward_kv. Its 64 keys are rows of wgmma's fragments
// (templates/common/fragment_layout.h), queries are columns.
#include "ir/wgmma.h"
#include "templates/backward/sm90_backward_kv/kernel.h"
#include "templates/backward/sm90_pair/roles.h"
#include "templates/backward/sm90_pair/sum_rows.h"
#include "templates/backward/tile_weights.h"

#include <optional>

namespace flashplus::sm90_backward_kv {
namespace {

using gpu::InFlight;

/// Values of the thread's columns in shared memory: two neighbours a block of columns, read together.
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

/// What is summed over the queries.
struct Sums {
  Fragment dk, dv;
  void fields(auto &&each) { each(dk, dv); }
};

struct Progress {
  Sums sums;
  QueryWalk::Place place;
  Positions at;
  void fields(auto &&each) { each(sums, place, at); }
};

class Math {
public:
  /// `sums_dk`, `sums_dv`: which sums are this warpgroup's.
  Math(Rings &rings, Val warpgroup, bool sums_dk, bool sums_dv)
      : r_(rings), c_(rings.c), ir_(rings.ir), l_(rings.l), sums_dk_(sums_dk), sums_dv_(sums_dv),
        warpgroup_(l_.roles == 2 ? ir_.i32(0) : warpgroup),
        lane_(rings.thread % 32), s_layout_{1, l_.tile_m / 8}, dk_layout_{1, sums_dk ? l_.dqk / 8 : 0},
        dv_layout_{1, sums_dv ? l_.dv / 8 : 0}, turns_(ir_, l_.pingpong, l_.shares(), warpgroup) {
    if (c_.spec.dropout)
      dropout_.emplace(ir_, c_.params, lane_, Axis::Columns);
  }

  Positions item(const Item &item, Positions at);

private:
  Progress queryLoop(const Item &item, const Progress &start);
  void add(const Item &item, Progress &now, Val last_step);
  InFlight multiply(int which, const Positions &at);
  InFlight accumulate(int which, Fragment &sum, const Vals &weights, const Positions &at);
  TileWeights weights(const Item &item, const WorkItem &work, Val query, Vals products, Val row_values);
  TileWeights masked(const Item &item, TileWeights w, Val query);

  Val ownKey() { return warpgroup_ * 64 + r_.thread / 32 % 4 * 16; } ///< The warp's first one in the tile.
  Vals pack(const Fragment &f) {
    Vals a;
    for (int step = 0; step < l_.tile_m / 16; ++step)
      llvm::append_range(a, operandA(f, c_.spec.dtype, 0, step));
    return a;
  }

  Rings &r_;
  EmitContext &c_;
  Ir &ir_;
  const Sm90BackwardKVLayout &l_;
  const bool sums_dk_, sums_dv_;
  Val warpgroup_; ///< Whose keys it has, i32.
  Val lane_;
  const FragmentLayout s_layout_, dk_layout_, dv_layout_;
  Turns turns_;
  std::optional<TileDropout> dropout_; // of a spec with dropout
};

Positions Math::item(const Item &item, Positions at) {
  const Progress start{{Fragment::filled(dk_layout_, ir_.f32(0)), Fragment::filled(dv_layout_, ir_.f32(0))},
                       item.walk.first(),
                       at};
  const Progress end = carry::ifElse(
      ir_, item.steps > 0, [&] { return queryLoop(item, start); }, [&] { return start; });
  ir_.ifThen(item.present, [&] {
    auto store = [&](Operand operand, const Fragment &sum, Val factor) {
      storeSumRows(c_, item.seq, operand, item.work.head_k, sum, factor,
                   item.first + ownKey() + firstOfLane(Axis::Rows, lane_), item.last, lane_);
    };
    if (sums_dk_)
      store(Operand::DK, end.sums.dk, c_.params.get("softmax_scale"));
    if (sums_dv_)
      store(Operand::DV, end.sums.dv, dropout_ ? dropout_->scale() : Val{});
  });
  return end.at;
}

Progress Math::queryLoop(const Item &item, const Progress &start) {
  r_.keys.ring().waitFull(start.at.keys);
  Progress end = carry::forLoop(ir_, ir_.i32(0), item.steps, ir_.i32(1), start, [&](Val step, Progress now) {
    add(item, now, step + 1 == item.steps);
    now.place = item.walk.next(now.place);
    now.at.queries = r_.queries.next(now.at.queries);
    return now;
  });
  end.at.keys = r_.keys.next(end.at.keys);
  return end;
}

/// S^T (0) or dP^T (1): keys times queries.
InFlight Math::multiply(int which, const Positions &at) {
  const auto a_steps = r_.keys.rowSteps(which), b_steps = r_.queries.rowSteps(which);
  // Else descriptors of both tiles are worked out before the loop and kept.
  Val a = r_.keys.rowsDescriptor(at.keys, which, gpu::again(ir_, warpgroup_) * 64);
  Val b = r_.queries.rowsDescriptor(at.queries, which, ir_.i32(0));
  return gpu::productFromShared(ir_, c_.spec.dtype, l_.tile_m, int(a_steps.size()), a, a_steps, b, b_steps);
}

/// dK (0) or dV (1) += weights times queries.
InFlight Math::accumulate(int which, Fragment &sum, const Vals &weights, const Positions &at) {
  return gpu::productFromRegisters(ir_, c_.spec.dtype, which ? l_.dv : l_.dqk, std::move(sum.values), weights,
                                   r_.queries.columnsDescriptor(at.queries, which), r_.queries.columnSteps());
}

void Math::add(const Item &item, Progress &now, Val last_step) {
  WorkItem work = item.work;
  work.head = work.head + now.place.head;
  Val query = item.walk.query(now.place);
  r_.queries.ring().waitFull(now.at.queries);
  r_.queries.clearTail(now.at.queries, item.seq, item.seq.q_len - query, r_.thread, 128 * l_.shares().math,
                       kTailBarrier);
  Val lse = ir_.offset(r_.rowValues(now.at.queries), firstOfLane(Axis::Columns, gpu::again(ir_, lane_)) * 4);
  auto draw = [&] { return dropout_->draw(s_layout_, work.batch, work.head, query, item.first + ownKey()); };
  Val last_keys = (lane_ == 0) & last_step;
  turns_.take();
  InFlight qk = multiply(0, now.at);
  if (!sums_dk_) {
    turns_.pass();
    TileWeights w = weights(item, work, query, gpu::wait(ir_, 0, std::move(qk)), lse);
    r_.keys.ring().release(now.at.keys, last_keys);
    if (dropout_)
      draw().apply(w.p); // dV gets the scale at the end
    now.sums.dv.values = gpu::wait(ir_, 0, accumulate(1, now.sums.dv, pack(w.p), now.at));
  } else {
    InFlight ov = multiply(1, now.at);
    turns_.pass();
    TileWeights w = weights(item, work, query, gpu::wait(ir_, 1, std::move(qk)), lse);
    gpu::computeBeforeWait(ir_, w.ofScores().values.back());
    Fragment dp{s_layout_, gpu::wait(ir_, 0, std::move(ov))};
    r_.keys.ring().release(now.at.keys, last_keys);
    ColumnValues delta(ir_, ir_.offset(lse, int64_t(l_.tile_m) * 4));
    Vals p, ds;
    if (dropout_) {
      const KeptElements kept = draw();
      dp = dropGradient(kept, dropout_->scale(), std::move(dp));
      ds = pack(subtractDelta(w.ofScores(), Axis::Columns, std::move(dp), delta));
      if (sums_dv_)
        kept.apply(w.p);
    }
    if (sums_dv_)
      p = pack(w.p);
    if (!dropout_)
      ds = pack(subtractDelta(w.ofScores(), Axis::Columns, std::move(dp), delta));
    if (sums_dv_) {
      InFlight dv = accumulate(1, now.sums.dv, p, now.at), dk = accumulate(0, now.sums.dk, ds, now.at);
      std::tie(now.sums.dv.values, now.sums.dk.values) = gpu::waitBoth(ir_, std::move(dv), std::move(dk));
    } else {
      now.sums.dk.values = gpu::wait(ir_, 0, accumulate(0, now.sums.dk, ds, now.at));
    }
  }
  gpu::warpSync(ir_); // every lane has read its rows' values
  r_.queries.ring().release(now.at.queries, lane_ == 0);
}

TileWeights Math::weights(const Item &item, const WorkItem &work, Val query, Vals products, Val row_values) {
  Vals rows; // of the score alone
  Val from = query + firstOfLane(Axis::Columns, lane_);
  for (int column = 0; column < s_layout_.count(Axis::Columns); ++column)
    rows.push_back(ir_.min(from + FragmentLayout::offset(Axis::Columns, column), item.seq.q_len - 1));
  Val key = item.first + ownKey() + firstOfLane(Axis::Rows, lane_);
  ColumnValues lse(ir_, row_values);
  return masked(item,
                tileWeights(c_, work, item.seq, Axis::Columns, scoreTile(s_layout_, Axis::Columns, rows, key),
                            {s_layout_, std::move(products)}, lse),
                query);
}

/// 0 where the mask hides a key or there is no query.
TileWeights Math::masked(const Item &item, TileWeights w, Val query) {
  Val end = query + l_.tile_m, last = ir_.min(end, item.seq.q_len) - 1;
  return carry::ifElse(
      ir_, item.mask.needsMask(query, last, item.first + warpgroup_ * 64, 64) | (end > item.seq.q_len),
      [&] {
        TileWeights seen = w;
        Val thread = gpu::again(ir_, r_.thread); // else this is worked out before the loop and kept
        Val warp = l_.roles == 2 ? thread / 32 % 4 : thread / 32;
        Val key = item.first + warp * 16 + firstOfLane(Axis::Rows, thread % 32);
        Val from = query + firstOfLane(Axis::Columns, thread % 32);
        for (int row = 0; row < s_layout_.count(Axis::Rows); ++row) {
          Val own = key + FragmentLayout::offset(Axis::Rows, row);
          const Mask::Rows queries = item.mask.queries(own, own);
          clearOutside(seen, Axis::Rows, row, c_.spec.bounded_right ? queries.begin - from : Val{},
                       queries.end - from);
        }
        return seen;
      },
      [&] { return w; });
}

} // namespace

void computeItems(Rings &rings, Val warp) {
  Ir &ir = rings.ir;
  auto compute = [&](bool sums_dk, bool sums_dv) {
    Math math(rings, warp / 4, sums_dk, sums_dv);
    forReceivedItems(ir, rings.items, rings.start(), rings.thread % 32,
                     [&](const WorkItem &work, const Positions &at) {
                       return math.item(Item(ir, rings.c, rings.l, work), at);
                     });
    return Vals{};
  };
  if (rings.l.roles == 1)
    compute(true, true);
  else
    ir.ifElse(
        warp < 4, [&] { return compute(false, true); }, [&] { return compute(true, false); });
}

} // namespace flashplus::sm90_backward_kv
