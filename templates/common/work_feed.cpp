// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/work_feed.h"

#include "ir/carried.h"
#include "ir/warp.h"
#include "ir/warpgroup.h"
#include "templates/common/sequence.h"

namespace flashplus {

Val WorkFeed::usedTiles(Val thread, int tile_m) const {
  Val planned = params_.get("num_m_tiles");
  Val dense = ir_.isNull(params_.get("cu_seqlens_q")) & ir_.isNull(params_.get("seqused_q"));
  return carry::ifElse(
      ir_, dense, [&] { return planned; },
      [&] {
        Val triples = params_.get("num_work_items") / planned, batch = triples / params_.get("heads_q");
        if (spec_.sharesKeys())
          batch = batch / params_.get("num_splits");
        Val longest =
            carry::forLoop(ir_, thread % 32, batch, ir_.i32(32), ir_.i32(0), [&](Val entry, Val so_far) {
              return ir_.max(so_far, Sequence(ir_, params_, entry, /*keys=*/std::nullopt).q_len);
            });
        for (int lanes = 16; lanes; lanes /= 2) // each waits for the whole warp
          longest = ir_.max(longest, gpu::shuffleXor(ir_, longest, lanes));
        return ir_.min(planned, ir_.ceilDiv(longest, tile_m));
      });
}

Val WorkFeed::total(Val m_tiles) const {
  return params_.get("num_work_items") / params_.get("num_m_tiles") * m_tiles;
}

WorkFeed::Place WorkFeed::first() const { return {block_, ir_.i32(0), block_}; }

WorkFeed::Place WorkFeed::next(const Place &place) const {
  Val grid = this->grid(), counter = params_.get("work_counter");
  return carry::ifElse(
      ir_, ir_.isNull(counter), [&] { return alternating(place, grid); },
      [&] {
        return Place{place.in_wave, place.wave, grid + add(counter, 1)};
      });
}

Val WorkFeed::ask(Val lane) const {
  Val counter = params_.get("work_counter"), none = ir_.i32(0);
  return carry::ifElse(
      ir_, ir_.isNull(counter) | (lane != 0), [&] { return none; }, [&] { return add(counter, 1); });
}

WorkFeed::Place WorkFeed::after(const Place &place, Val asked) const {
  Val grid = this->grid();
  return carry::ifElse(
      ir_, ir_.isNull(params_.get("work_counter")), [&] { return alternating(place, grid); },
      [&] {
        return Place{place.in_wave, place.wave, grid + gpu::shuffleFrom(ir_, asked, ir_.i32(0))};
      });
}

WorkFeed::Place WorkFeed::alternating(const Place &place, Val grid) {
  Val in_wave = grid - 1 - place.in_wave, wave = place.wave + grid;
  return {in_wave, wave, wave + in_wave};
}

void WorkFeed::reset() const {
  Val counter = params_.get("work_counter");
  ir_.ifThen(!ir_.isNull(counter), [&] {
    Val grid = this->grid(), ended = add(ir_.offset(counter, 4), 1);
    ir_.ifThen(ended == grid - 1, [&] {
      ir_.store(ir_.i32(0), counter, 4);
      ir_.store(ir_.i32(0), ir_.offset(counter, 4), 4);
    });
  });
}

Val WorkFeed::grid() const {
  return ir_.wrap(mlir::NVVM::GridDimXOp::create(ir_.builder, ir_.loc, ir_.i32()));
}

// Without an order (LLVM drops one, compiler/passes/Passes.h): no data passes by the counters. That a block
// has taken its last item before it counts as ended is sure because the one's result decides whether it does
// the other.
Val WorkFeed::add(Val pointer, int value) const {
  return ir_.wrap(mlir::LLVM::AtomicRMWOp::create(ir_.builder, ir_.loc, mlir::LLVM::AtomicBinOp::add,
                                                  pointer.value, ir_.i32(value).value,
                                                  mlir::LLVM::AtomicOrdering::monotonic, "device"));
}

void ItemSlots::send(gpu::Position p, const WorkItem &item, Val valid) {
  ring_.waitEmpty(p);
  const Val fields[] = {item.m, item.head, item.head_k, item.split, item.batch, valid};
  for (auto [i, field] : llvm::enumerate(fields))
    ir_.store(field, ir_.offset(slot(p), int64_t(i) * 4), 4);
  gpu::arrive(ir_, ring_.full(p), ir_.boolean(true));
}

ItemSlots::Received ItemSlots::receive(gpu::Position p, Val lane) {
  ring_.waitFull(p);
  Received item;
  int at = 0;
  for (Val *field :
       {&item.work.m, &item.work.head, &item.work.head_k, &item.work.split, &item.work.batch, &item.valid})
    *field = gpu::uniform(ir_, ir_.load(ir_.i32(), ir_.offset(slot(p), int64_t(at++) * 4), 4));
  gpu::warpSync(ir_); // every lane has read
  ring_.release(p, lane == 0);
  return item;
}

} // namespace flashplus
