// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/decode/merge.h"

#include "ir/carried.h"
#include "ir/mma.h"
#include "ir/ptx.h"
#include "templates/common/result_rows.h"

namespace flashplus::decode {
namespace {

Val vectorOf(Ir &ir, const Vals &elements) {
  Val v = ir.constant(ir.vec(elements[0].type(), int(elements.size())), 0);
  for (size_t i = 0; i < elements.size(); ++i)
    v = ir.wrap(mlir::vector::InsertOp::create(ir.builder, ir.loc, elements[i].value, v.value, int64_t(i)));
  return v;
}

Vals elementsOf(Ir &ir, Val vector, int count) {
  Vals elements;
  for (int i = 0; i < count; ++i)
    elements.push_back(
        ir.wrap(mlir::vector::ExtractOp::create(ir.builder, ir.loc, vector.value, int64_t(i))));
  return elements;
}

Val shiftLeft(Ir &ir, Val x, Val by) {
  return ir.wrap(mlir::arith::ShLIOp::create(ir.builder, ir.loc, x.value, by.value));
}

Val shiftRight(Ir &ir, Val x, Val by) {
  return ir.wrap(mlir::arith::ShRUIOp::create(ir.builder, ir.loc, x.value, by.value));
}

/// Adds to an i32 in global memory; what was there. It releases what the block's threads stored before their
/// barrier and acquires what other blocks released so: in PTX, for LLVM (22.1) drops the order of an atomicrmw
/// for NVPTX, and shares would be read before they are written.
Val countUp(Ir &ir, Val pointer, Val value) {
  return gpu::ptx(ir, "atom.acq_rel.gpu.global.add.u32 $0, [$1], $2;", "=r,l,r,~{memory}", {ir.i32()},
                  {pointer, value})[0];
}

} // namespace

Merge::Statistics Merge::statistics(Val at) const {
  const Vals both = elementsOf(ir_, ir_.load(ir_.vec(ir_.f32(), 2), at, 8), 2);
  return {both[0], both[1]};
}

Val Merge::warpStatistics(Val warp, Val row) const {
  return k_.shared(k_.l.statistics(), (warp * k_.l.tile_m + row) * 8);
}

/// A row's maximum and sum over the warps.
Merge::Statistics Merge::ofWarps(Val row) const {
  std::vector<Statistics> all;
  Val max;
  for (int w = 0; w < k_.l.warps; ++w) {
    all.push_back(statistics(warpStatistics(ir_.i32(w), row)));
    max = max ? ir_.fmax(max, all.back().max) : all.back().max;
  }
  Val base = softmax::reference(ir_, max), sum = ir_.f32(0);
  for (const Statistics &s : all)
    sum = ir_.fma(s.sum, ir_.exp2(s.max - base), sum);
  return {max, sum};
}

void Merge::finish(const Segment &segment, softmax::State state) {
  const DecodeLayout &l = k_.l;
  const int lines = state.o.lines(Axis::Columns);
  for (Val &sum : state.sum)
    sum = reduceAcrossLanes(Axis::Columns, sum, [](Val a, Val b) { return a + b; });
  auto row = [&](int line) {
    return firstOfLane(Axis::Columns, k_.lane) + FragmentLayout::offset(Axis::Columns, line);
  };
  ir_.ifThen(k_.lane < 4, [&] {
    for (int line = 0; line < lines; ++line)
      ir_.store(vectorOf(ir_, {state.max[size_t(line)], state.sum[size_t(line)]}),
                warpStatistics(k_.warp, row(line)), 8);
  });
  gpu::barrier(ir_);
  for (int line = 0; line < lines; ++line) {
    Val max = ofWarps(row(line)).max;
    scaleLine(state.o, Axis::Columns, line, ir_.exp2(state.max[size_t(line)] - softmax::reference(ir_, max)));
  }
  ir_.ifThen(k_.thread < l.tile_m, [&] { storeStatistics(segment); });
  for (int first = 0; first < l.dv_pad; first += l.sectionColumns())
    section(segment, state.o, first);
  ir_.ifThen(segment.blocks > 1, [&] { ir_.ifThen(isLast(segment), [&] { shares(segment); }); });
}

/// By one thread a row: for the block, and the row's LSE or its share's statistics.
void Merge::storeStatistics(const Segment &segment) {
  const Statistics s = ofWarps(k_.thread);
  Val both = vectorOf(ir_, {s.max, s.sum});
  ir_.store(both, k_.shared(k_.l.merged(), k_.thread * 8), 8);
  ir_.ifElse(
      segment.blocks == 1,
      [&] {
        ir_.ifThen(k_.thread < segment.rows, [&] {
          storeLse(segment, k_.thread, softmax::finish(ir_, s.max, s.sum, k_.c.params.get("lse_empty")).lse);
        });
        return Vals();
      },
      [&] {
        Val share = line_.block() - segment.first_block;
        Val at = place(segment, share) * k_.l.tile_m + k_.thread;
        ir_.store(both, ir_.offset(k_.c.params.get("partial_lse"), ir_.toI64(at) * 8), 8);
        return Vals();
      });
}

/// O's columns from `first` on: from the warps' registers to memory.
void Merge::section(const Segment &segment, const Fragment &o, int first) {
  const DecodeLayout &l = k_.l;
  const int columns = std::min(l.sectionColumns(), l.dv_pad - first), pitch = l.sectionPitch();
  const int warp_bytes = l.tile_m * pitch * 4;
  Val row = firstOfLane(Axis::Columns, k_.lane), column = firstOfLane(Axis::Rows, k_.lane);
  Val to = k_.shared(l.section(), k_.warp * warp_bytes + (row * pitch + column) * 4);
  for (int line = 0; line < o.lines(Axis::Columns); ++line)
    for (int i = first / 8; i < (first + columns) / 8; ++i)
      ir_.store(o.at(Axis::Columns, line, i),
                ir_.offset(to, (FragmentLayout::offset(Axis::Columns, line) * pitch +
                                FragmentLayout::offset(Axis::Rows, i) - first) *
                                   4),
                4);
  gpu::barrier(ir_);
  const int pairs = columns / 2, all = l.tile_m * pairs;
  for (int from = 0; from < all; from += l.threads()) {
    Val index = k_.thread + from;
    auto body = [&] {
      Val own_row = index / pairs, pair = index % pairs;
      Val at = k_.shared(l.section(), (own_row * pitch + pair * 2) * 4);
      Vals sum;
      for (int w = 0; w < l.warps; ++w) {
        const Vals both =
            elementsOf(ir_, ir_.load(ir_.vec(ir_.f32(), 2), ir_.offset(at, w * warp_bytes), 8), 2);
        sum = w ? Vals{sum[0] + both[0], sum[1] + both[1]} : both;
      }
      storePair(segment, own_row, pair * 2 + first, sum[0], sum[1]);
    };
    if (from + l.threads() <= all)
      body();
    else
      ir_.ifThen(index < all, body);
  }
  // After the last section the next writer comes behind another barrier: that of the next item's statistics.
  if (first + columns < l.dv_pad)
    gpu::barrier(ir_);
}

/// Two neighbouring columns of a row.
void Merge::storePair(const Segment &segment, Val row, Val column, Val low, Val high) {
  const DecodeLayout &l = k_.l;
  Val wanted = row < segment.rows;
  if (l.dv != l.dv_pad)
    wanted = wanted & (column < l.dv);
  ir_.ifThen(wanted, [&] {
    ir_.ifElse(
        segment.blocks == 1,
        [&] {
          const Statistics s = statistics(k_.shared(l.merged(), row * 8));
          Val factor = softmax::finish(ir_, s.max, s.sum, ir_.f32(0)).factor;
          const ResultRows results(ir_, k_.c.params, k_.c.spec, segment.sequence, segment.item);
          const auto [query, head] = k_.packed(segment, row);
          Val at = ir_.toI64(query) * results.rowStride() + ir_.toI64(head) * results.headStride() +
                   ir_.toI64(column) * k_.bytes;
          ir_.store(gpu::pack(ir_, k_.dtype, low * factor, high * factor), ir_.offset(results.values(), at),
                    4);
          return Vals();
        },
        [&] {
          Val share = line_.block() - segment.first_block;
          Val at = ir_.toI64(place(segment, share) * l.tile_m + row) * (l.dv * 4) + ir_.toI64(column) * 4;
          ir_.store(vectorOf(ir_, {low, high}), ir_.offset(k_.c.params.get("partial_o"), at), 8);
          return Vals();
        });
  });
}

void Merge::storeLse(const Segment &segment, Val row, Val lse) {
  const ResultRows results(ir_, k_.c.params, k_.c.spec, segment.sequence, segment.item);
  ir_.ifThen(results.storesLse(ir_.boolean(true)), [&] {
    const auto [query, head] = k_.packed(segment, row);
    ir_.store(lse,
              ir_.offset(results.lse(), ir_.toI64(head) * results.lseHeadStride() + ir_.toI64(query) * 4), 4);
  });
}

/// Where share `share` of the item is: its first one is the end of a block's range.
Val Merge::place(const Segment &segment, Val share) const {
  return (segment.first_block + share) * 2 + ir_.select(share == 0, ir_.i32(1), ir_.i32(0));
}

/// Counts the block's share, which is in memory; whether it was the last one. All threads get the answer.
Val Merge::isLast(const Segment &segment) {
  Val flag = k_.shared(k_.l.last());
  gpu::barrier(ir_); // so that one thread's atomic operation releases what all have stored
  ir_.ifThen(k_.thread == 0, [&] {
    Val counter = ir_.offset(k_.c.params.get("work_counter"), segment.first_block / 4 * 4);
    Val shift = segment.first_block % 4 * 8;
    Val before = countUp(ir_, counter, shiftLeft(ir_, ir_.i32(1), shift));
    Val last = (shiftRight(ir_, before, shift) & 255) == segment.blocks - 1;
    // Nobody else counts this item any more: the byte is taken off without an order.
    ir_.ifThen(last, [&] {
      mlir::LLVM::AtomicRMWOp::create(ir_.builder, ir_.loc, mlir::LLVM::AtomicBinOp::add, counter.value,
                                      (ir_.i32(0) - shiftLeft(ir_, segment.blocks, shift)).value,
                                      mlir::LLVM::AtomicOrdering::monotonic, "device");
    });
    ir_.store(ir_.select(last, ir_.i32(1), ir_.i32(0)), flag, 4);
  });
  gpu::barrier(ir_);
  return ir_.load(ir_.i32(), flag, 4) != 0;
}

/// Merges the item's shares. A thread has four columns of a row, and asks for several shares before it uses
/// the first: what a merge costs is the latency of its loads. Where rows leave threads over, groups of them
/// have some of the shares each, and what they have is summed up in shared memory.
void Merge::shares(const Segment &segment) {
  const DecodeLayout &l = k_.l;
  Val pairs = segment.rows * (l.dv / 4); // none of an item without rows
  Val divisor = ir_.max(ir_.i32(1), pairs);
  Val groups =
      ir_.max(ir_.i32(1), ir_.min(ir_.i32(l.threads()) / divisor,
                                  (segment.blocks + (k_.l.sharesAtOnce() - 1)) / k_.l.sharesAtOnce()));
  Val group = k_.thread / divisor;
  group = ir_.select(groups == 1, ir_.i32(0), group);
  Val own = k_.shared(l.section(), k_.thread * DecodeLayout::kSumBytes);
  ir_.rareLoop(ir_.select(group < groups, k_.thread - group * pairs, pairs), pairs, ir_.i32(l.threads()),
               [&](Val index) {
                 const Sum sum =
                     sumOf(segment, index, group * k_.l.sharesAtOnce(), groups * k_.l.sharesAtOnce());
                 ir_.ifElse(
                     groups == 1, [&] { return storeRow(segment, index, sum), Vals(); },
                     [&] {
                       ir_.store(vectorOf(ir_, {sum.max, sum.sum}), own, 8);
                       ir_.store(vectorOf(ir_, sum.o), ir_.offset(own, 16), 16);
                       return Vals();
                     });
               });
  ir_.ifThen(groups > 1, [&] {
    gpu::barrier(ir_);
    ir_.ifThen(k_.thread < pairs, [&] {
      storeRow(segment, k_.thread,
               carry::forLoop(ir_, ir_.i32(0), groups, ir_.i32(1), nothing(), [&](Val g, const Sum &so_far) {
                 Val at = ir_.offset(own, g * pairs * DecodeLayout::kSumBytes);
                 const Statistics s = statistics(at);
                 const Vals o = elementsOf(ir_, ir_.load(ir_.vec(ir_.f32(), 4), ir_.offset(at, 16), 16), 4);
                 return plus(so_far, {{s, o, {}}});
               }));
    });
  });
}

Merge::Sum Merge::nothing() const {
  return {ir_.negativeInfinity(ir_.f32()), ir_.f32(0), Vals(4, ir_.f32(0))};
}

/// Every `step` shares from `first` on, sharesAtOnce() of them.
Merge::Sum Merge::sumOf(const Segment &segment, Val index, Val first, Val step) const {
  const DecodeLayout &l = k_.l;
  const int64_t o_bytes = int64_t(l.tile_m) * l.dv * 4, lse_bytes = l.tile_m * 8; // of a place
  Val row = index / (l.dv / 4), column = index % (l.dv / 4) * 4;
  auto from = [&](const char *name, int64_t bytes, Val inside) {
    return ir_.offset(ir_.offset(k_.c.params.get(name), ir_.toI64(segment.first_block) * (2 * bytes)),
                      inside);
  };
  Val o_at = from("partial_o", o_bytes, (row * l.dv + column) * 4);
  Val lse_at = from("partial_lse", lse_bytes, row * 8);
  return carry::forLoop(ir_, first, segment.blocks, step, nothing(), [&](Val share, const Sum &so_far) {
    // The first one of all is in its block's second place.
    auto place = [&](Val base, int64_t bytes) { return ir_.offset(base, ir_.toI64(share) * (2 * bytes)); };
    Val o_from = place(o_at, o_bytes), lse_from = place(lse_at, lse_bytes), begins = share == 0;
    auto firstPlace = [&](Val base, int64_t bytes) {
      return ir_.offset(base, ir_.select(begins, ir_.i32(int(bytes)), ir_.i32(0)));
    };
    std::vector<Share> shares;
    for (int i = 0; i < k_.l.sharesAtOnce(); ++i) {
      Val there = share + i < segment.blocks;
      const Vals s =
          gpu::loadIf(ir_, there, i ? lse_from : firstPlace(lse_from, lse_bytes), 2 * i * lse_bytes, 2);
      shares.push_back({{s[0], s[1]},
                        gpu::loadIf(ir_, there, i ? o_from : firstPlace(o_from, o_bytes), 2 * i * o_bytes, 4),
                        there});
    }
    return plus(so_far, shares);
  });
}

/// What is no share is zeros, and -inf is no maximum. A share without a key is zeros; one whose scores all
/// are NaN must count, though its maximum is -inf, too.
Merge::Sum Merge::plus(Sum sum, std::vector<Share> shares) const {
  for (Share &s : shares)
    if (s.there)
      s.statistics.max = ir_.select(s.there, s.statistics.max, ir_.negativeInfinity(ir_.f32()));
  Val highest = sum.max;
  for (const Share &s : shares)
    highest = ir_.fmax(highest, s.statistics.max);
  Val base = softmax::reference(ir_, highest), alpha = ir_.exp2(sum.max - base);
  sum.max = highest;
  sum.sum = sum.sum * alpha;
  for (Val &x : sum.o)
    x = x * alpha;
  for (const Share &s : shares) {
    Val weight = ir_.exp2(s.statistics.max - base);
    sum.sum = ir_.fma(s.statistics.sum, weight, sum.sum);
    for (size_t e = 0; e < 4; ++e)
      sum.o[e] = ir_.fma(s.o[e], weight, sum.o[e]);
  }
  return sum;
}

/// Four columns of a row of the result; its LSE with the first four.
void Merge::storeRow(const Segment &segment, Val index, const Sum &sum) {
  const int quads = k_.l.dv / 4;
  Val row = index / quads, column = index % quads * 4;
  const auto finish = softmax::finish(ir_, sum.max, sum.sum, k_.c.params.get("lse_empty"));
  const ResultRows results(ir_, k_.c.params, k_.c.spec, segment.sequence, segment.item);
  const auto [query, head] = k_.packed(segment, row);
  Val to = ir_.toI64(query) * results.rowStride() + ir_.toI64(head) * results.headStride() +
           ir_.toI64(column) * k_.bytes;
  Vals packed;
  for (size_t e = 0; e < 4; e += 2)
    packed.push_back(gpu::pack(ir_, k_.dtype, sum.o[e] * finish.factor, sum.o[e + 1] * finish.factor));
  ir_.store(vectorOf(ir_, packed), ir_.offset(results.values(), to), 8);
  ir_.ifThen(column == 0, [&] { storeLse(segment, row, finish.lse); });
}

} // namespace flashplus::decode
