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
/// barrier and acquires what other blocks released so: in PTX, for LLVM (22.1) drops the order of an
/// atomicrmw for NVPTX, and shares would be read before they are written.
Val countUp(Ir &ir, Val pointer, Val value) {
  return gpu::ptx(ir, "atom.acq_rel.gpu.global.add.u32 $0, [$1], $2;", "=r,l,r,~{memory}", {ir.i32()},
                  {pointer, value})[0];
}

} // namespace

Merge::Statistics Merge::statistics(Val at) const {
  const Vals both = elementsOf(ir_, ir_.load(ir_.vec(ir_.f32(), 2), at, 8), 2);
  return {both[0], both[1]};
}

/// Of a packed row.
std::optional<softmax::Sink> Merge::sinkOf(const Segment &segment, Val row) const {
  if (!k_.c.spec.hasSinks()) // whose head is worked out for nobody
    return std::nullopt;
  return softmax::sinkOf(ir_, k_.c.params, k_.c.spec, segment.item.head + k_.packed(segment, row).head);
}

Val Merge::warpStatistics(Val warp, Val row) const {
  return k_.shared(k_.l.statistics(), (warp * k_.l.tile_m + row) * 8);
}

/// A row's maximum and sum over the warps. The eight lanes that have the row read a warp's each.
Merge::Statistics Merge::ofWarps(Val row) const {
  static_assert(DecodeLayout::kMostWarps == 32 / 4);
  Val warp = k_.lane / 4;
  Statistics s = statistics(warpStatistics(ir_.min(warp, ir_.i32(k_.l.warps - 1)), row));
  if (k_.l.warps < DecodeLayout::kMostWarps) {
    Val there = warp < k_.l.warps;
    s = {ir_.select(there, s.max, ir_.negativeInfinity(ir_.f32())), ir_.select(there, s.sum, ir_.f32(0))};
  }
  Val max = reduceAcrossLanes(Axis::Columns, s.max, [&](Val a, Val b) { return ir_.fmax(a, b); });
  return {max, reduceAcrossLanes(Axis::Columns, s.sum * ir_.exp2(s.max - softmax::reference(ir_, max)),
                                 [](Val a, Val b) { return a + b; })};
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
  std::vector<Statistics> merged;
  for (int line = 0; line < lines; ++line) {
    merged.push_back(ofWarps(row(line)));
    scaleLine(state.o, Axis::Columns, line,
              ir_.exp2(state.max[size_t(line)] - softmax::reference(ir_, merged.back().max)));
  }
  ir_.ifThen((k_.warp == l.warps - 1) & (k_.lane < 4), [&] {
    for (int line = 0; line < lines; ++line)
      storeStatistics(segment, row(line), merged[size_t(line)]);
  });
  for (int first = 0; first < l.dv_pad; first += l.sectionColumns())
    section(segment, state.o, first);
  ir_.ifElse(
      segment.blocks == 1,
      [&] {
        ir_.ifThen(k_.thread < segment.rows, [&] {
          const Statistics s = statistics(k_.shared(l.merged(), k_.thread * 8));
          const auto sink = sinkOf(segment, k_.thread);
          storeLse(segment, k_.thread,
                   softmax::finish(ir_, s.max, s.sum, k_.c.params.get("lse_empty"), sink).lse);
        });
        return Vals();
      },
      [&] { return mergeShares(segment), Vals(); });
}

/// Of a row: for the block, and where it is a share's, in its place.
void Merge::storeStatistics(const Segment &segment, Val row, const Statistics &s) {
  Val both = vectorOf(ir_, {s.max, s.sum});
  ir_.store(both, k_.shared(k_.l.merged(), row * 8), 8);
  ir_.ifThen(segment.blocks > 1, [&] {
    Val at = place(segment, line_.block() - segment.first_block) * k_.l.tile_m + row;
    ir_.store(both, ir_.offset(k_.c.params.get("partial_lse"), ir_.toI64(at) * 8), 8);
  });
}

/// What the block has stored is counted, and who brings the last share merges. Of many shares the last one of
/// a group merges the group's, which are a share of a second level then: one block alone would read them all.
/// An item of many has groups of kGroup blocks; their results lie in the second places of the blocks from the
/// item's second one on, and their counts in the bytes of blocks inside the item: neither of them begins an
/// item that others have tiles of, which is what those are for otherwise.
void Merge::mergeShares(const Segment &segment) {
  constexpr int kGroup = DecodeLayout::kShareGroup;
  Val grouped = segment.blocks > DecodeLayout::kMostShares;
  Val groups = (segment.blocks + (kGroup - 1)) / kGroup;
  Val group = (line_.block() - segment.first_block) / kGroup, group_first = group * kGroup;
  const Shares all{segment.first_block, ir_.i32(0), segment.blocks, segment.first_block * 2, ir_.i32(1)};
  const Shares second{segment.first_block, ir_.i32(0), groups,
                      DecodeLayout::groupPlace(segment.first_block, ir_.i32(0)), ir_.i32(0)};
  if (!k_.l.mergesGroups()) {
    ir_.ifThen(isLast(all), [&] { merge(segment, all, ir_.boolean(true), second.place); });
    return;
  }
  auto max = [&](Val a, int b) { return ir_.max(a, ir_.i32(b)); };
  const Shares own{DecodeLayout::groupCounter(segment.first_block, group_first, max), group_first,
                   ir_.min(segment.blocks - group_first, ir_.i32(kGroup)), segment.first_block * 2,
                   ir_.i32(1)};
  // Levels: 0 of groups, 1 of all, 2 done.
  carry::whileLoop(
      ir_, ir_.select(grouped, ir_.i32(0), ir_.i32(1)), [&](Val level) { return level < 2; },
      [&](Val level) {
        Val final = level == 1;
        auto choose = [&](Val Shares::*field) {
          return ir_.select(final, ir_.select(grouped, second.*field, all.*field), own.*field);
        };
        const Shares shares{choose(&Shares::counter), choose(&Shares::first), choose(&Shares::count),
                            choose(&Shares::place), choose(&Shares::first_shifted)};
        Val last = isLast(shares);
        ir_.ifThen(last, [&] {
          merge(segment, shares, final, DecodeLayout::groupPlace(segment.first_block, group));
        });
        return ir_.select(last, level + 1, ir_.i32(2));
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
  const int pairs = columns / 2, all = l.tile_m * pairs;
  // Read before the barrier, so that their latency is that of the warps' wait for each other.
  std::vector<std::optional<softmax::Sink>> sinks(size_t((all + l.threads() - 1) / l.threads()));
  for (size_t i = 0; k_.c.spec.hasSinks() && i < sinks.size(); ++i)
    sinks[i] = sinkOf(segment, (k_.thread + int(i) * l.threads()) / pairs);
  gpu::barrier(ir_);
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
      storePair(segment, own_row, pair * 2 + first, sum[0], sum[1], sinks[size_t(from / l.threads())]);
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
void Merge::storePair(const Segment &segment, Val row, Val column, Val low, Val high,
                      const std::optional<softmax::Sink> &sink) {
  const DecodeLayout &l = k_.l;
  Val wanted = row < segment.rows;
  if (l.dv != l.dv_pad)
    wanted = wanted & (column < l.dv);
  ir_.ifThen(wanted, [&] {
    ir_.ifElse(
        segment.blocks == 1,
        [&] {
          const Statistics s = statistics(k_.shared(l.merged(), row * 8));
          Val factor = softmax::finish(ir_, s.max, s.sum, ir_.f32(0), sink).factor;
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
Val Merge::isLast(const Shares &shares) {
  Val flag = k_.shared(k_.l.last());
  gpu::barrier(ir_); // so that one thread's atomic operation releases what all have stored
  ir_.ifThen(k_.thread == 0, [&] {
    Val counter = ir_.offset(k_.c.params.get("work_counter"), shares.counter / 4 * 4);
    Val shift = shares.counter % 4 * 8;
    Val before = countUp(ir_, counter, shiftLeft(ir_, ir_.i32(1), shift));
    Val last = (shiftRight(ir_, before, shift) & 255) == shares.count - 1;
    // Nobody else counts this item any more: the byte is taken off without an order.
    ir_.ifThen(last, [&] {
      mlir::LLVM::AtomicRMWOp::create(ir_.builder, ir_.loc, mlir::LLVM::AtomicBinOp::add, counter.value,
                                      (ir_.i32(0) - shiftLeft(ir_, shares.count, shift)).value,
                                      mlir::LLVM::AtomicOrdering::monotonic, "device");
    });
    ir_.store(ir_.select(last, ir_.i32(1), ir_.i32(0)), flag, 4);
  });
  gpu::barrier(ir_);
  return ir_.load(ir_.i32(), flag, 4) != 0;
}

/// Merges shares into the item's result, or into the share at place `to`. A thread has four columns of a row,
/// and asks for several shares before it uses the first: what a merge costs is the latency of its loads.
/// Where rows leave threads over, groups of them have some of the shares each, and what they have is summed
/// up in shared memory. Rows count as a power of two, for a division would stand before the first load.
void Merge::merge(const Segment &segment, const Shares &all, Val final, Val to) {
  const DecodeLayout &l = k_.l;
  const int quads = l.dv / 4, at_once = l.sharesAtOnce();
  const int slots = std::max(1, l.threads() / quads); // rows that the threads have at once
  Val slot = k_.thread / quads, column = k_.thread % quads * 4, log = ir_.i32(0);
  for (int rows = 1; rows < l.tile_m; rows *= 2)
    log = ir_.select(segment.rows > rows, log + 1, log);
  Val parts = ir_.max(ir_.i32(1),
                      ir_.min(shiftRight(ir_, ir_.i32(slots), log), (all.count + (at_once - 1)) / at_once));
  Val several = parts > 1, rows = shiftLeft(ir_, ir_.i32(1), log);
  Val part = ir_.select(several, shiftRight(ir_, slot, log), ir_.i32(0));
  Val row = ir_.select(several, slot & (rows - 1), slot);
  Val working = (part < parts) & (slot < slots);
  Val own = k_.shared(l.section(), k_.thread * DecodeLayout::kSumBytes);
  auto store = [&](Val at, const Sum &sum) {
    ir_.ifElse(
        final, [&] { return storeRow(segment, at, column, sum), Vals(); },
        [&] { return storeShare(to, at, column, sum), Vals(); });
  };
  ir_.rareLoop(ir_.select(working, row, segment.rows), segment.rows, ir_.i32(slots), [&](Val at) {
    const Sum sum = sumOf(all, at, column, all.first + part * at_once, parts * at_once);
    ir_.ifElse(
        several,
        [&] {
          ir_.store(vectorOf(ir_, {sum.max, sum.sum}), own, 8);
          ir_.store(vectorOf(ir_, sum.o), ir_.offset(own, 16), 16);
          return Vals();
        },
        [&] { return store(at, sum), Vals(); });
  });
  ir_.ifThen(several, [&] {
    gpu::barrier(ir_);
    ir_.ifThen((part == 0) & (row < segment.rows) & (slot < slots), [&] {
      store(row, carry::forLoop(ir_, ir_.i32(0), parts, ir_.i32(1), nothing(), [&](Val g, const Sum &so_far) {
              Val at = ir_.offset(own, g * rows * (quads * DecodeLayout::kSumBytes));
              const Statistics s = statistics(at);
              const Vals o = elementsOf(ir_, ir_.load(ir_.vec(ir_.f32(), 4), ir_.offset(at, 16), 16), 4);
              return plus(so_far, {{s, o, {}}});
            }));
    });
  });
}

/// Four columns of a row of a share of the second level; its statistics with the first four.
void Merge::storeShare(Val to, Val row, Val column, const Sum &sum) {
  const DecodeLayout &l = k_.l;
  Val at = to * l.tile_m + row;
  ir_.store(vectorOf(ir_, sum.o),
            ir_.offset(k_.c.params.get("partial_o"), ir_.toI64(at) * (l.dv * 4) + ir_.toI64(column) * 4), 16);
  ir_.ifThen(column == 0, [&] {
    ir_.store(vectorOf(ir_, {sum.max, sum.sum}),
              ir_.offset(k_.c.params.get("partial_lse"), ir_.toI64(at) * 8), 8);
  });
}

Merge::Sum Merge::nothing() const {
  return {ir_.negativeInfinity(ir_.f32()), ir_.f32(0), Vals(4, ir_.f32(0))};
}

/// Every `step` shares from `first` on, sharesAtOnce() of them.
Merge::Sum Merge::sumOf(const Shares &all, Val row, Val column, Val first, Val step) const {
  const DecodeLayout &l = k_.l;
  const int64_t o_bytes = int64_t(l.tile_m) * l.dv * 4, lse_bytes = l.tile_m * 8; // of a place
  auto from = [&](const char *name, int64_t bytes, Val inside) {
    return ir_.offset(ir_.offset(k_.c.params.get(name), ir_.toI64(all.place) * bytes), inside);
  };
  Val o_at = from("partial_o", o_bytes, (row * l.dv + column) * 4);
  Val lse_at = from("partial_lse", lse_bytes, row * 8);
  Val end = all.first + all.count;
  return carry::forLoop(ir_, first, end, step, nothing(), [&](Val share, const Sum &so_far) {
    auto place = [&](Val base, int64_t bytes) { return ir_.offset(base, ir_.toI64(share) * (2 * bytes)); };
    Val o_from = place(o_at, o_bytes), lse_from = place(lse_at, lse_bytes);
    Val shifted = ir_.select(share == 0, all.first_shifted, ir_.i32(0));
    auto firstPlace = [&](Val base, int64_t bytes) { return ir_.offset(base, shifted * int(bytes)); };
    std::vector<Share> shares;
    for (int i = 0; i < k_.l.sharesAtOnce(); ++i) {
      Val there = share + i < end;
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
void Merge::storeRow(const Segment &segment, Val row, Val column, const Sum &sum) {
  const auto finish =
      softmax::finish(ir_, sum.max, sum.sum, k_.c.params.get("lse_empty"), sinkOf(segment, row));
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
