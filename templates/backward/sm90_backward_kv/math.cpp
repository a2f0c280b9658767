// SPDX-License-Identifier: BSD-3-Clause
// A math warpgroup of sm90.backward_kv. Its 64 keys are rows of wgmma's fragments
// (templates/common/fragment_layout.h), queries are columns.
#include "ir/add.h"
#include "ir/tma.h"
#include "ir/wgmma.h"
#include "templates/backward/rows/dq_sums.h"
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

/// Where the next tile of dQ goes: its first row among the sums of its head, and how many rows there are from
/// there on.
struct DQTarget {
  Val sums, rows;
  void fields(auto &&each) { each(sums, rows); }
};

struct Progress {
  Sums sums;
  QueryWalk::Place place;
  Positions at;
  DQTarget dq;
  void fields(auto &&each) { each(sums, place, at, dq); }
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
  Progress step(const Item &item, Progress now, Val last_step, bool first);
  void add(const Item &item, Progress &now, Val last_step, bool first);
  void accumulateAll(Progress &now, const Vals &p, const Vals &ds, bool first);
  Val weightsTile(gpu::Position p);
  void writeWeights(Positions &at, const Vals &ds);
  DQTarget dqTarget(const Item &item, const WorkItem &work, Val query);
  InFlight multiplyDQ(const Positions &at);
  void addDQ(Progress &now, InFlight product, int pending);
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
                       at,
                       {c_.params.get("dq_parts"), ir_.i32(0)}};
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
  if (l_.adds_dq) // no weight hides what is not finite there from dQ
    r_.keys.clearTail(start.at.keys, item.seq, item.seq.k_len - item.first, r_.thread, 128 * l_.shares().math,
                      kTailBarrier);
  const bool skews = l_.adds_dq && l_.skew;
  auto last = [&](Val index) { return index + 1 == item.steps; };
  const Progress begin = skews ? step(item, start, last(ir_.i32(0)), /*first=*/true) : start;
  Progress end = carry::forLoop(
      ir_, ir_.i32(skews ? 1 : 0), item.steps, ir_.i32(1), begin,
      [&](Val index, Progress now) { return step(item, std::move(now), last(index), /*first=*/false); });
  if (skews)
    addDQ(end, multiplyDQ(end.at), 0);
  if (l_.adds_dq)
    r_.keys.ring().release(end.at.keys, lane_ == 0);
  end.at.keys = r_.keys.next(end.at.keys);
  return end;
}

Progress Math::step(const Item &item, Progress now, Val last_step, bool first) {
  add(item, now, last_step, first);
  now.place = item.walk.next(now.place);
  now.at.queries = r_.queries.next(now.at.queries);
  return now;
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

void Math::add(const Item &item, Progress &now, Val last_step, bool first) {
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
    if (!l_.adds_dq)
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
    if (l_.adds_dq) {
      writeWeights(now.at, ds);
      if (!l_.skew || first)
        now.dq = dqTarget(item, work, query);
      accumulateAll(now, p, ds, first);
      if (l_.skew && !first)
        now.dq = dqTarget(item, work, query);
    } else if (sums_dv_) {
      InFlight dv = accumulate(1, now.sums.dv, p, now.at), dk = accumulate(0, now.sums.dk, ds, now.at);
      std::tie(now.sums.dv.values, now.sums.dk.values) = gpu::waitBoth(ir_, std::move(dv), std::move(dk));
    } else {
      now.sums.dk.values = gpu::wait(ir_, 0, accumulate(0, now.sums.dk, ds, now.at));
    }
  }
  if (!l_.adds_dq) // whose writeWeights() has done it since
    gpu::warpSync(ir_); // every lane has read its rows' values
  r_.queries.ring().release(now.at.queries, lane_ == 0);
}

Val Math::weightsTile(gpu::Position p) {
  return gpu::sharedAddress(ir_, c_.scratch) + p.stage * l_.weightsStage() + l_.weightsAt();
}

/// dS of the warp's 16 keys into the ring, transposed: queries are rows, and a warpgroup's 64 keys a slab.
void Math::writeWeights(Positions &at, const Vals &ds) {
  r_.weights.waitEmpty(at.written);
  Val thread = gpu::again(ir_, r_.thread), row = thread % 8;
  Val chunk = thread / 32 % 4 * 2 + thread / 8 % 2;
  Val to = weightsTile(at.written) + thread / 128 * l_.weightsSlab() + (thread / 16 % 2 * 8 + row) * 128 +
           (chunk ^ row) * 16;
  for (int step = 0; step < l_.tile_m / 16; ++step)
    gpu::storeMatrix4(ir_, to + step * 16 * 128, llvm::ArrayRef(ds).slice(size_t(4 * step), 4),
                      /*transposed=*/true);
  gpu::fenceAsyncShared(ir_);
  gpu::warpSync(ir_); // every lane has written
  gpu::arrive(ir_, r_.weights.full(at.written), lane_ == 0);
  at.written = r_.weights.next(at.written);
}

DQTarget Math::dqTarget(const Item &item, const WorkItem &work, Val query) {
  const DQSums sums(ir_, c_.params, item.seq, work.batch, work.head, l_.dqk);
  return {ir_.offset(sums.first(), ir_.toI64(query) * (l_.dqk * 4)), item.seq.q_len - query};
}

/// The warpgroup's share of a tile of dQ.
InFlight Math::multiplyDQ(const Positions &at) {
  r_.weights.waitFull(at.read);
  Val warpgroup = gpu::again(ir_, warpgroup_);
  Val a = weightsTile(at.read);
  if (l_.dqByRows())
    a = a + warpgroup * (64 * 128);
  llvm::SmallVector<int> a_steps;
  for (int i = 0; i < l_.tile_n / 16; ++i)
    a_steps.push_back(i / 4 * l_.weightsSlab() + i % 4 * 32);
  Val b = l_.dqByRows() ? r_.keys.columnsDescriptor(at.keys, 0)
                        : r_.keys.columnsDescriptor(at.keys, 0, warpgroup);
  return gpu::productFromShared(ir_, c_.spec.dtype, l_.dqColumns(), int(a_steps.size()),
                                gpu::descriptorRowsContiguousInK(ir_, a), a_steps, b, r_.keys.columnSteps(),
                                /*columns_are_n=*/true);
}

/// Waits for it and adds it to the sums. The tile of dS is read from then on by none.
void Math::addDQ(Progress &now, InFlight product, int pending) {
  const Fragment dq{{1, l_.dqColumns() / 8}, gpu::wait(ir_, pending, std::move(product))};
  r_.weights.release(now.at.read, lane_ == 0);
  now.at.read = r_.weights.next(now.at.read);
  Val thread = gpu::again(ir_, r_.thread), lane = thread % 32, warpgroup = thread / 128;
  Val row = thread / 32 % 4 * 16;
  Val column_bytes = ir_.i32(0);
  if (l_.dqByRows())
    row = row + warpgroup * 64;
  else
    column_bytes = warpgroup * (64 / DQSums::kColumns * DQSums::kBlockBytes);
  const int blocks = l_.dqk / DQSums::kColumns;
  Val to = ir_.offset(now.dq.sums, row * (l_.dqk * 4) + column_bytes + lane * 16);
  Val own = row + firstOfLane(Axis::Rows, lane);
  for (int line = 0; line < 2; ++line) {
    ir_.ifThen(own + line * DQSums::kRows < now.dq.rows, [&] {
      for (int block = 0; block < l_.dqColumns() / DQSums::kColumns; ++block) {
        Val four[4];
        for (int i = 0; i < 4; ++i)
          four[i] = dq.at(Axis::Rows, line, 4 * block + i);
        gpu::add4(ir_, to, int64_t(line * blocks + block) * DQSums::kBlockBytes, four);
      }
    });
  }
}

/// dV += P^T dO and dK += dS^T Q, and a tile of dQ: this step's, or, skewed, the last one's.
void Math::accumulateAll(Progress &now, const Vals &p, const Vals &ds, bool first) {
  auto both = [&](int pending, InFlight dv, InFlight dk) {
    std::tie(now.sums.dv.values, now.sums.dk.values) =
        gpu::waitBoth(ir_, std::move(dv), std::move(dk), pending);
  };
  if (l_.skew && !first && l_.dq_first) {
    InFlight dq = multiplyDQ(now.at);
    InFlight dv = accumulate(1, now.sums.dv, p, now.at), dk = accumulate(0, now.sums.dk, ds, now.at);
    addDQ(now, std::move(dq), 2);
    both(0, std::move(dv), std::move(dk));
    return;
  }
  InFlight dv = accumulate(1, now.sums.dv, p, now.at), dk = accumulate(0, now.sums.dk, ds, now.at);
  if (l_.skew && first)
    return both(0, std::move(dv), std::move(dk));
  InFlight dq = multiplyDQ(now.at);
  both(1, std::move(dv), std::move(dk));
  addDQ(now, std::move(dq), 0);
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
          Val end_of_own = queries.end - from;
          if (l_.adds_dq) // to which a key past the last gives nothing
            end_of_own = ir_.select(own < item.seq.k_len, end_of_own, ir_.i32(0));
          clearOutside(seen, Axis::Rows, row, c_.spec.bounded_right ? queries.begin - from : Val{},
                       end_of_own);
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
