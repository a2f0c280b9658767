// SPDX-License-Identifier: BSD-3-Clause
#include "ir/carried.h"
#include "ir/mbarrier.h"
#include "ir/mma.h"
#include "ir/tma.h"
#include "ir/warp.h"
#include "ir/warpgroup.h"
#include "ir/wgmma.h"
#include "templates/common/mask.h"
#include "templates/common/result_rows.h"
#include "templates/common/score.h"
#include "templates/common/score_tile.h"
#include "templates/emit.h"
#include "templates/forward/sm90_flash/layout.h"

namespace flashplus {
namespace {

using gpu::InFlight;
using gpu::Pipeline;
using gpu::Position;

/// Where a role is in the rings.
struct Positions {
  Position q, k, v, item;
  void fields(auto &&each) { each(q, k, v, item); }
};

/// Which item comes next.
struct Place {
  Val in_wave, wave, item;
  void fields(auto &&each) { each(in_wave, wave, item); }
};

struct Copying {
  Positions at;
  Place next;
  void fields(auto &&each) { each(at, next); }
};

/// A work item that was received; `valid` (i32) is 0 for the end.
struct Received {
  WorkItem work;
  Val valid;
  void fields(auto &&each) { each(work, valid); }
};

struct Computing {
  Positions at;
  Received item;
  void fields(auto &&each) { each(at, item); }
};

/// One work item as both roles see it; they must agree on every field.
struct Item {
  Item(Ir &ir, EmitContext &c, const Sm90FlashLayout &l, const WorkItem &item)
      : work(item), seq(ir, c.params, work.batch),
        mask(ir, c.params, c.spec, seq), first(work.m * l.tile_m),
        last(ir.min(first + l.tile_m, seq.q_len) - 1), present(first < seq.q_len),
        tiles(mask.tiles(first, last, l.tile_n, work.split, c.spec.sharesKeys() ? c.params.get("num_splits") : Val{})),
        has_keys(present & (tiles.begin < tiles.end)) {}

  WorkItem work;
  Sequence seq;
  Mask mask;
  Val first, last; ///< Query rows of the tile.
  Val present;     ///< It has a query row at all.
  Mask::Tiles tiles;
  Val has_keys;
};

/// The two roles' common ground.
class Sm90Flash {
public:
  explicit Sm90Flash(EmitContext &c)
      : c_(c), ir_(c.ir), l_(Sm90FlashLayout::of(c.spec, c.schedule)), base_(gpu::sharedAddress(ir_, c.scratch)),
        q_(ir_, l_.q_stages, base_ + l_.barriers()),
        k_(ir_, l_.stages, base_ + (l_.barriers() + 16 * l_.q_stages)),
        v_(ir_, l_.stages, base_ + (l_.barriers() + 16 * (l_.q_stages + l_.stages))),
        items_(ir_, l_.kItemSlots, base_ + (l_.barriers() + 16 * (l_.q_stages + 2 * l_.stages))),
        thread_(gpu::threadId(ir_)) {}

  void emit();

private:
  Positions start() { return {q_.start(), k_.start(), v_.start(), items_.start()}; }

  // A work item passes from the copying thread to the math warps through a slot of shared memory, decoded: the divisions
  // are made once and ahead of time.
  Val itemSlot(Position p) { return ir_.offset(ir_.offset(c_.scratch, p.stage * l_.kItemBytes), l_.items()); }
  void sendItem(Position p, const WorkItem &item, Val valid);
  Received receiveItem(Position p);

  Val qTile(Position p) { return base_ + p.stage * l_.qBytes() + l_.q(); }
  Val kTile(Position p) { return base_ + p.stage * l_.kBytes() + l_.k(); }
  Val vTile(Position p) { return base_ + p.stage * l_.vBytes() + l_.v(); }

  // --- the copying thread ----------------------------------------------------------------------------------------
  Val usedTiles();
  void copyItems(Val m_tiles);
  Place nextItem(const Place &place);
  void resetCounter();
  Val atomicAdd(Val pointer, int value);
  Positions copyItem(const Item &item, Positions at);
  void copyTile(Pipeline &pipe, Position at, Val tile, int map, int slabs, int rows, const Item &item,
                Operand operand, Val row, Val head, gpu::Keep keep);

  friend class Sm90Math;
  EmitContext &c_;
  Ir &ir_;
  const Sm90FlashLayout l_;
  Val base_;
  Pipeline q_, k_, v_, items_;
  Val thread_;
};

/// A thread of a math warpgroup. Element e of block j of a 64 x n accumulator (value 4 j + e) lies at row
/// 16 (warp % 4) + lane / 4 + 8 (e / 2) and column 8 j + 2 (lane % 4) + e % 2 (PTX ISA, wgmma.m64nNk16). A thread's two
/// rows are numbered 0 and 1 here.
class Sm90Math {
public:
  Sm90Math(Sm90Flash &kernel, Val warpgroup)
      : kernel_(kernel), c_(kernel.c_), ir_(kernel.ir_), l_(kernel.l_), warpgroup_(warpgroup),
        lane_(kernel.thread_ % 32), row_in_tile_(warpgroup_ * 64 + kernel.thread_ / 32 % 4 * 16 + lane_ / 4),
        s_count_(l_.tile_n / 2), o_count_(l_.dvPad() / 2), p_count_(l_.tile_n / 4) {}

  Positions item(const Item &item, Positions at);
  void armPingpong();

private:
  static constexpr int kFirstTurn = 1;    ///< Named barriers, one a warpgroup: whose turn it is on the tensor cores.
  static constexpr int kTailBarrier = 8;  ///< All math warpgroups.

  struct State { ///< O, the rows' maxima and sums, the last tile's P.
    Vals o;
    Val max[2], sum[2];
    Vals p;
    void fields(auto &&each) { each(o, max, sum, p); }
  };
  struct Progress {
    State state;
    Positions at;
    void fields(auto &&each) { each(state, at); }
  };

  Progress keyLoop(const Item &item, Positions at);
  State start();
  InFlight multiplyQK(Position q, Position k);
  InFlight multiplyPV(State &state, Position v);
  TileScores scores(const Item &item, Vals products, Val key);
  Vals masked(const Item &item, const Vals &s, Val key, const TileExponents &exponents);
  void softmax(const Item &item, Vals &s, Val key, State &state, Val alpha[2]);
  void scaleO(State &state, const Val alpha[2]);
  Vals packP(const Vals &s);
  void clearTail(const Item &item, Position v);
  void store(const Item &item, State state);
  void storeRow(const Item &item, const Vals &o, int row, Val values, Val stride);

  Val rowInSequence(const Item &item, int row) { return item.first + row_in_tile_ + 8 * row; }
  Val reduceRow(Val x, llvm::function_ref<Val(Val, Val)> combine) {
    x = combine(x, gpu::shuffleXor(ir_, x, 1));
    return combine(x, gpu::shuffleXor(ir_, x, 2));
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
  void release(Pipeline &pipe, Position at) { pipe.release(at, lane_ == 0); }

  Sm90Flash &kernel_;
  EmitContext &c_;
  Ir &ir_;
  const Sm90FlashLayout &l_;
  Val warpgroup_; ///< 0 to mathWarpgroups() - 1
  Val lane_, row_in_tile_;
  const int s_count_, o_count_, p_count_;
  Val next_turn_;
};

// ================================================================================================================

void Sm90Flash::emit() {
  ir_.ifThen(thread_ == 0, [&] {
    for (int i = 0; i < 3; ++i)
      gpu::prefetchMap(ir_, ir_.offset(c_.tensor_maps, int64_t(i) * kTensorMapBytes));
    const int math_warps = 4 * l_.mathWarpgroups();
    for (Pipeline *pipe : {&q_, &k_, &v_, &items_})
      pipe->init(1, math_warps);
    gpu::fenceBarrierInit(ir_);
  });
  gpu::barrier(ir_);
  Val warp = gpu::uniformWarp(ir_, thread_);
  ir_.ifElse(
      warp >= 4 * l_.mathWarpgroups(),
      [&]() -> Vals {
        gpu::decreaseRegisters(ir_, l_.copyRegisters());
        ir_.ifThen(warp == 4 * l_.mathWarpgroups(), [&] {
          Val m_tiles = usedTiles();
          ir_.ifThen(gpu::electOne(ir_), [&] { copyItems(m_tiles); });
        });
        return {};
      },
      [&]() -> Vals {
        gpu::increaseRegisters(ir_, l_.mathRegisters());
        Sm90Math math(*this, warp / 4);
        math.armPingpong();
        // Each turn receives the next item while the present one's are done; the first has none.
        const Received first = receiveItem(items_.start());
        Positions at = start();
        at.item = items_.next(at.item);
        carry::whileLoop(
            ir_, Computing{at, first}, [](const Computing &now) { return now.item.valid != 0; },
            [&](const Computing &now) {
              Positions next = math.item(Item(ir_, c_, l_, now.item.work), now.at);
              const Received following = receiveItem(next.item);
              next.item = items_.next(next.item);
              return Computing{next, following};
            });
        return {};
      });
}

void Sm90Flash::sendItem(Position p, const WorkItem &item, Val valid) {
  items_.waitEmpty(p);
  const Val fields[] = {item.m, item.head, item.head_k, item.split, item.batch, valid};
  for (auto [i, field] : llvm::enumerate(fields))
    ir_.store(field, ir_.offset(itemSlot(p), int64_t(i) * 4), 4);
  gpu::arrive(ir_, items_.full(p), ir_.boolean(true));
}

Received Sm90Flash::receiveItem(Position p) {
  items_.waitFull(p);
  Vals fields;
  for (int i = 0; i < 6; ++i)
    fields.push_back(gpu::uniform(ir_, ir_.load(ir_.i32(), ir_.offset(itemSlot(p), int64_t(i) * 4), 4)));
  gpu::warpSync(ir_); // every lane has read
  items_.release(p, thread_ % 32 == 0);
  return {{fields[0], fields[1], fields[2], fields[3], fields[4]}, fields[5]};
}

// --- copying -----------------------------------------------------------------------------------------------------

/// Query tiles of the longest sequence. The launch is planned for max_seqlen_q, which callers may put far too high: an item
/// without rows costs as much as an atomic operation and a few loads. By the whole warp.
Val Sm90Flash::usedTiles() {
  Val planned = c_.params.get("num_m_tiles");
  Val dense = ir_.isNull(c_.params.get("cu_seqlens_q")) & ir_.isNull(c_.params.get("seqused_q"));
  return carry::ifElse(
      ir_, dense, [&] { return planned; },
      [&] {
        Val triples = c_.params.get("num_work_items") / planned, batch = triples / c_.params.get("heads_q");
        if (c_.spec.sharesKeys())
          batch = batch / c_.params.get("num_splits");
        Val longest = carry::forLoop(ir_, thread_ % 32, batch, ir_.i32(32), ir_.i32(0), [&](Val entry, Val so_far) {
          return ir_.max(so_far, Sequence(ir_, c_.params, entry, /*with_keys=*/false).q_len);
        });
        for (int lanes = 16; lanes; lanes /= 2) // each waits for the whole warp
          longest = ir_.max(longest, gpu::shuffleXor(ir_, longest, lanes));
        return ir_.min(planned, ir_.ceilDiv(longest, l_.tile_m));
      });
}

/// The first item is the block's number. After it, with a counter, the next one that no block has taken: long items first
/// then leaves nobody waiting. Without one, one of each wave of `grid` items, from alternating ends.
void Sm90Flash::copyItems(Val m_tiles) {
  Val total = c_.params.get("num_work_items") / c_.params.get("num_m_tiles") * m_tiles;
  const Copying first{start(), {c_.work_item, ir_.i32(0), c_.work_item}};
  const Copying end = carry::whileLoop(
      ir_, first, [&](const Copying &now) { return now.next.item < total; },
      [&](const Copying &now) {
        Positions at = now.at;
        const Place following = nextItem(now.next); // asked for early, needed late
        const WorkItem work = decodeWorkItem(ir_, c_.params, c_.spec, now.next.item, HeadsOfItem::One, m_tiles);
        sendItem(at.item, work, ir_.i32(1));
        at.item = items_.next(at.item);
        const Item item(ir_, c_, l_, work);
        at = carry::ifElse(
            ir_, item.has_keys, [&] { return copyItem(item, at); }, [&] { return at; });
        countTiles(ir_, c_.params, [&] { return item.tiles.end - item.tiles.begin; }, [&](Val counting) { return item.has_keys & counting; });
        return Copying{at, following};
      });
  Val none = ir_.i32(0);
  sendItem(end.at.item, {none, none, none, none, none}, none);
  resetCounter();
}

Place Sm90Flash::nextItem(const Place &place) {
  Val grid = ir_.wrap(mlir::NVVM::GridDimXOp::create(ir_.builder, ir_.loc, ir_.i32()));
  Val counter = c_.params.get("work_counter");
  return carry::ifElse(
      ir_, ir_.isNull(counter),
      [&] {
        Val in_wave = grid - 1 - place.in_wave, wave = place.wave + grid;
        return Place{in_wave, wave, wave + in_wave};
      },
      [&] { return Place{place.in_wave, place.wave, grid + atomicAdd(counter, 1)}; });
}

/// The last block to end leaves the counter as it was found. Every block has taken an item past the end by then.
void Sm90Flash::resetCounter() {
  Val counter = c_.params.get("work_counter");
  ir_.ifThen(!ir_.isNull(counter), [&] {
    Val grid = ir_.wrap(mlir::NVVM::GridDimXOp::create(ir_.builder, ir_.loc, ir_.i32()));
    Val ended = atomicAdd(ir_.offset(counter, 4), 1);
    ir_.ifThen(ended == grid - 1, [&] {
      ir_.store(ir_.i32(0), counter, 4);
      ir_.store(ir_.i32(0), ir_.offset(counter, 4), 4);
    });
  });
}

Val Sm90Flash::atomicAdd(Val pointer, int value) {
  return ir_.wrap(mlir::LLVM::AtomicRMWOp::create(ir_.builder, ir_.loc, mlir::LLVM::AtomicBinOp::add, pointer.value,
                                                  ir_.i32(value).value, mlir::LLVM::AtomicOrdering::acq_rel, "device"));
}

void Sm90Flash::copyTile(Pipeline &pipe, Position at, Val tile, int map, int slabs, int rows, const Item &item,
                         Operand operand, Val row, Val head, gpu::Keep keep) {
  auto [first_row, batch] = item.seq.mapCoordinates(operand);
  pipe.waitEmpty(at);
  gpu::arriveExpect(ir_, pipe.full(at), slabs * rows * 128);
  for (int slab = 0; slab < slabs; ++slab)
    gpu::loadBox(ir_, tile + slab * rows * 128,
                    ir_.offset(c_.tensor_maps, int64_t(map) * kTensorMapBytes),
                    {ir_.i32(64 * slab), first_row + row, head, batch}, pipe.full(at), keep);
}

/// K of the first tile, Q, then each next K before the V that its predecessor waits for. Keys go upwards: blocks that run at
/// the same time then read the same tiles at the same time, whatever query rows they have.
Positions Sm90Flash::copyItem(const Item &item, Positions at) {
  auto copyK = [&](Val tile) {
    copyTile(k_, at.k, kTile(at.k), 1, l_.qkSlabs(), l_.tile_n, item, Operand::K, tile * l_.tile_n,
             item.work.head_k, gpu::Keep::Last);
    at.k = k_.next(at.k);
  };
  auto copyV = [&](Val tile) {
    copyTile(v_, at.v, vTile(at.v), 2, l_.vSlabs(), l_.tile_n, item, Operand::V, tile * l_.tile_n,
             item.work.head_k, gpu::Keep::Last);
    at.v = v_.next(at.v);
  };
  const Mask::Tiles &tiles = item.tiles;
  copyK(tiles.begin);
  copyTile(q_, at.q, qTile(at.q), 0, l_.qkSlabs(), l_.tile_m, item, Operand::Q, item.first, item.work.head,
           gpu::Keep::First);
  at.q = q_.next(at.q);
  at = carry::forLoop(ir_, tiles.begin + 1, tiles.end, ir_.i32(1), at, [&](Val tile, const Positions &now) {
    at = now;
    copyK(tile);
    copyV(tile - 1);
    return at;
  });
  copyV(tiles.end - 1);
  return at;
}

// --- arithmetic --------------------------------------------------------------------------------------------------

void Sm90Math::armPingpong() {
  const int n = l_.mathWarpgroups();
  if (l_.pingpong) {
    Val last = warpgroup_ == n - 1;
    next_turn_ = ir_.select(last, ir_.i32(kFirstTurn), warpgroup_ + (kFirstTurn + 1));
    ir_.ifThen(last, [&] { passTurn(); }); // the first warpgroup begins
  }
}

Positions Sm90Math::item(const Item &item, Positions at) {
  const Progress end = carry::ifElse(
      ir_, item.has_keys, [&] { return keyLoop(item, at); }, [&] { return Progress{start(), at}; });
  ir_.ifThen(item.present, [&] { store(item, end.state); });
  return end.at;
}

/// Before the first key.
Sm90Math::State Sm90Math::start() {
  State state;
  state.o.assign(o_count_, ir_.f32(0));
  for (int row = 0; row < 2; ++row) {
    state.max[row] = ir_.negativeInfinity(ir_.f32());
    state.sum[row] = ir_.f32(0);
  }
  return state;
}

Sm90Math::Progress Sm90Math::keyLoop(const Item &item, Positions at) {
  Val alpha[2];
  auto key = [&](Val tile) { return tile * l_.tile_n; };

  // The first tile: there is no O yet.
  kernel_.q_.waitFull(at.q);
  kernel_.k_.waitFull(at.k);
  Vals s = gpu::wait(ir_, 0, multiplyQK(at.q, at.k));
  release(kernel_.k_, at.k);
  at.k = kernel_.k_.next(at.k);
  State state = start();
  softmax(item, s, key(item.tiles.begin), state, alpha);
  state.p = packP(s);

  Progress last = carry::forLoop(
      ir_, item.tiles.begin + 1, item.tiles.end, ir_.i32(1), Progress{state, at}, [&](Val tile, Progress now) {
        takeTurn();
        kernel_.k_.waitFull(now.at.k);
        InFlight qk = multiplyQK(now.at.q, now.at.k);
        kernel_.v_.waitFull(now.at.v);
        InFlight pv = multiplyPV(now.state, now.at.v);
        passTurn();
        Vals t = gpu::wait(ir_, 1, std::move(qk));
        release(kernel_.k_, now.at.k);
        now.at.k = kernel_.k_.next(now.at.k);
        softmax(item, t, key(tile), now.state, alpha);
        gpu::computeBeforeWait(ir_, now.state.sum[0] + now.state.sum[1]);
        // P must not be packed, nor O scaled, while the product that uses them is in flight.
        now.state.o = gpu::wait(ir_, 0, std::move(pv), &t);
        release(kernel_.v_, now.at.v);
        now.at.v = kernel_.v_.next(now.at.v);
        now.state.p = packP(t);
        scaleO(now.state, alpha);
        return now;
      });
  release(kernel_.q_, last.at.q);
  last.at.q = kernel_.q_.next(last.at.q);
  kernel_.v_.waitFull(last.at.v);
  clearTail(item, last.at.v);
  last.state.o = gpu::wait(ir_, 0, multiplyPV(last.state, last.at.v));
  release(kernel_.v_, last.at.v);
  last.at.v = kernel_.v_.next(last.at.v);
  last.state.p.clear();
  return last;
}

InFlight Sm90Math::multiplyQK(Position q, Position k) {
  llvm::SmallVector<int> q_steps, k_steps;
  for (int i = 0; i < l_.qkSteps(); ++i) {
    q_steps.push_back(i / 4 * l_.tile_m * 128 + i % 4 * 32);
    k_steps.push_back(i / 4 * l_.tile_n * 128 + i % 4 * 32);
  }
  Val a = gpu::descriptorRowsContiguousInK(ir_, kernel_.qTile(q) + warpgroup_ * (64 * 128));
  Val b = gpu::descriptorRowsContiguousInK(ir_, kernel_.kTile(k));
  return gpu::productFromShared(ir_, c_.spec.dtype, l_.tile_n, l_.qkSteps(), a, q_steps, b, k_steps);
}

InFlight Sm90Math::multiplyPV(State &state, Position v) {
  llvm::SmallVector<int> steps;
  for (int i = 0; i < l_.tile_n / 16; ++i)
    steps.push_back(i * 16 * 128);
  Val b = gpu::descriptorColumnsAreN(ir_, kernel_.vTile(v), l_.tile_n * 128);
  return gpu::productFromRegisters(ir_, c_.spec.dtype, l_.dvPad(), std::move(state.o), state.p, b, steps);
}

TileScores Sm90Math::scores(const Item &item, Vals products, Val key) {
  ScoreTile tile;
  for (int row = 0; row < 2; ++row)
    tile.rows.push_back(ir_.min(rowInSequence(item, row), item.last));
  tile.key = key + lane_ % 4 * 2;
  for (int x = 0; x < s_count_; ++x)
    tile.elements.push_back({x / 2 % 2, x / 4 * 8 + x % 2});
  // Parts of a split problem are few and wait for memory; with a short cut, windows and D 256 would spill.
  tile.short_cuts = !c_.spec.sharesKeys();
  return tileScores(ir_, c_.params, *c_.score, item.work, item.seq, tile, std::move(products), c_.params.get("softmax_scale"));
}

/// -inf where the mask hides a key; negated where that gives the order of the scores.
Vals Sm90Math::masked(const Item &item, const Vals &s, Val key, const TileExponents &exponents) {
  Val first = item.first + warpgroup_ * 64, column = key + lane_ % 4 * 2;
  return ir_.ifElse(
      item.mask.needsMask(first, ir_.min(first + 63, item.last), key, l_.tile_n) | exponents.negative,
      [&] {
        Vals masked = s;
        for (int row = 0; row < 2; ++row) {
          Val r = ir_.min(rowInSequence(item, row), item.last);
          Val lo = item.mask.lo(r) - column, hi = item.mask.hi(r) - column;
          for (int x = 0; x < s_count_; ++x) {
            if (x / 2 % 2 != row)
              continue;
            Val at = ir_.i32(x / 4 * 8 + x % 2);
            masked[x] = ir_.select((at >= lo) & (at < hi), s[x] * exponents.sign, ir_.negativeInfinity(ir_.f32()));
          }
        }
        return masked;
      },
      [&] { return s; });
}

/// O = alpha O, where some row of the warp needs it.
void Sm90Math::scaleO(State &state, const Val alpha[2]) {
  Val one = ir_.f32(1);
  state.o = ir_.ifElse(
      gpu::anyLane(ir_, (alpha[0] != one) | (alpha[1] != one)),
      [&] {
        Vals scaled = state.o;
        for (int x = 0; x < o_count_; ++x)
          scaled[x] = scaled[x] * alpha[x / 2 % 2];
        return scaled;
      },
      [&] { return state.o; });
}

/// Products -> probabilities in place; `alpha` is what O has to be scaled by. Maxima are base-2 scores. They are taken before
/// scaling, which then is one fused operation with the subtraction. Sums stay per thread until the end. The reference
/// that is subtracted is always the maximum: one that may fall behind (FlashAttention-4's rule) would spare more scaling, but
/// the largest probability is then not 1, which the storage dtype holds exactly, and the error grows past the model's bound.
void Sm90Math::softmax(const Item &item, Vals &s, Val key, State &state, Val alpha[2]) {
  TileScores scored = scores(item, std::move(s), key);
  const TileExponents exponents(ir_, scored);
  s = masked(item, scored.values, key, exponents);
  for (int row = 0; row < 2; ++row) {
    // Four independent chains: one would be bound by latency.
    Val top[4];
    int next = 0;
    for (int x = 0; x < s_count_; ++x)
      if (x / 2 % 2 == row) {
        Val &chain = top[next++ % 4];
        chain = chain ? ir_.fmax(chain, s[x]) : s[x];
      }
    Val highest = ir_.fmax(ir_.fmax(top[0], top[1]), ir_.fmax(top[2], top[3]));
    // A shift is this thread's own: it has the key of the thread's first element in it.
    auto most = [&](Val a, Val b) { return ir_.fmax(a, b); };
    highest = exponents.shifted() ? reduceRow(exponents.score(highest, row), most)
                                  : exponents.score(reduceRow(highest, most), row);
    Val old_max = state.max[row];
    state.max[row] = ir_.fmax(old_max, highest);
    Val reference = softmax::reference(ir_, state.max[row]);
    alpha[row] = ir_.exp2(old_max - reference); // exactly 1 for a maximum that has not moved, which spares the scaling of O
    Val minus = exponents.minus(reference, row);
    Val sum[2] = {state.sum[row] * alpha[row], {}};
    next = 0;
    for (int x = 0; x < s_count_; ++x)
      if (x / 2 % 2 == row) {
        s[x] = ir_.exp2(ir_.fma(s[x], exponents.scale, minus));
        Val &chain = sum[next++ % 2];
        chain = chain ? chain + s[x] : s[x];
      }
    state.sum[row] = sum[0] + sum[1];
  }
}

/// An accumulator's values are, packed in pairs, the A operand of the next product.
Vals Sm90Math::packP(const Vals &s) {
  Vals p;
  for (int i = 0; i < p_count_; ++i)
    p.push_back(gpu::pack(ir_, c_.spec.dtype, s[2 * i], s[2 * i + 1]));
  return p;
}

/// Keys past the sequence have P = 0, which does not help against an infinity or a NaN in V: where such rows are not
/// outside the tensor (TMA has zeros there), they are cleared before the last product, the one that reads them.
void Sm90Math::clearTail(const Item &item, Position v) {
  Val valid = item.seq.k_len - (item.tiles.end - 1) * l_.tile_n;
  ir_.ifThen(item.seq.hasRowsBehind(Operand::V) & (valid < l_.tile_n), [&] {
    const int threads = 128 * l_.mathWarpgroups();
    Val zero = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
    Val tile = ir_.offset(ir_.offset(c_.scratch, v.stage * l_.vBytes()), int64_t(l_.v()));
    for (int slab = 0; slab < l_.vSlabs(); ++slab)
      ir_.forLoop(valid * 8 + kernel_.thread_, ir_.i32(l_.tile_n * 8), ir_.i32(threads), [&](Val chunk) {
        ir_.store(zero, ir_.offset(ir_.offset(tile, chunk * 16), int64_t(slab) * l_.tile_n * 128), 16);
      });
    gpu::fenceAsyncShared(ir_);
    gpu::barrierSync(ir_, ir_.i32(kTailBarrier), threads);
  });
}

// --- results -----------------------------------------------------------------------------------------------------

void Sm90Math::store(const Item &item, State state) {
  const ResultRows results(ir_, c_.params, c_.spec, item.seq, item.work);
  Val empty = results.lseEmpty(), stores_lse = lane_ % 4 == 0, lse = results.lse();
  stores_lse = results.storesLse(stores_lse);
  Val stride = results.rowStride(), values = results.values();
  for (int row = 0; row < 2; ++row) {
    Val sum = reduceRow(state.sum[row], [](Val a, Val b) { return a + b; });
    const auto finish = softmax::finish(ir_, state.max[row], sum, empty);
    for (int x = 0; x < o_count_; ++x)
      if (x / 2 % 2 == row)
        state.o[x] = state.o[x] * finish.factor;
    Val r = rowInSequence(item, row);
    ir_.ifThen(stores_lse & (r <= item.last), [&] { ir_.store(finish.lse, ir_.offset(lse, ir_.toI64(r) * 4), 4); });
    storeRow(item, state.o, row, values, stride);
  }
}

/// O leaves from registers. A thread holds 2 neighbouring columns of every block of 8, its quad a whole block; a 4 x 4
/// transpose among the quad's threads gives each one block of four, 16 bytes that go out in one store.
void Sm90Math::storeRow(const Item &item, const Vals &o, int row, Val values, Val stride) {
  Val r = rowInSequence(item, row), quad = lane_ % 4;
  Val to = ir_.offset(values, ir_.toI64(r) * stride);
  Val valid = r <= item.last;
  const int blocks = l_.dv / 8;
  auto at = [&](int block, int e) { return o[4 * block + 2 * row + e]; };
  if (c_.spec.isPartial()) {
    ir_.ifThen(valid, [&] {
      Val mine = ir_.offset(to, ir_.toI64(quad) * 8);
      for (int block = 0; block < blocks; ++block)
        for (int e = 0; e < 2; ++e)
          ir_.store(at(block, e), ir_.offset(mine, block * 32 + e * 4), 4);
    });
    return;
  }
  Val odd = quad % 2 == 1, upper = quad >= 2;
  for (int group = 0; group < blocks; group += 4) {
    Val x[4];
    for (int j = 0; j < 4; ++j)
      x[j] = group + j < blocks ? gpu::pack(ir_, c_.spec.dtype, at(group + j, 0), at(group + j, 1)) : ir_.i32(0);
    Val y[4]; // pairs of lanes: blocks 0 and 2 of the even lane, 1 and 3 of the odd one
    for (int j = 0; j < 4; j += 2) {
      Val got = gpu::shuffleXor(ir_, ir_.select(odd, x[j], x[j + 1]), 1);
      y[j] = ir_.select(odd, got, x[j]);
      y[j + 1] = ir_.select(odd, x[j + 1], got);
    }
    Val packed = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
    for (int j = 0; j < 2; ++j) {
      Val got = gpu::shuffleXor(ir_, ir_.select(upper, y[j], y[j + 2]), 2);
      Val keep = ir_.select(upper, y[j + 2], y[j]);
      for (int half = 0; half < 2; ++half) {
        Val word = half == 0 ? ir_.select(upper, got, keep) : ir_.select(upper, keep, got);
        packed = ir_.wrap(
            mlir::vector::InsertOp::create(ir_.builder, ir_.loc, word.value, packed.value, int64_t(2 * half + j)));
      }
    }
    Val stores = blocks - group >= 4 ? valid : valid & (quad < blocks - group);
    ir_.ifThen(stores, [&] { ir_.store(packed, ir_.offset(ir_.offset(to, group * 16), ir_.toI64(quad) * 16), 16); });
  }
}

} // namespace

void emitSm90Flash(EmitContext &context) { Sm90Flash(context).emit(); }

} // namespace flashplus
