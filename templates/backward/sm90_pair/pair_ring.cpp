// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm90_pair/pair_ring.h"

#include "ir/warpgroup.h"
#include "ir/wgmma.h"
#include "templates/common/key_rows.h"

namespace flashplus {

PairRing::PairRing(EmitContext &c, const PairTiles &tiles, Operand first, Operand second, int first_map,
                   int at, int barriers)
    : c_(c), ir_(c.ir), tiles_(tiles), operands_{first, second}, first_map_(first_map), at_(at),
      base_(gpu::sharedAddress(ir_, c.scratch)), ring_(ir_, tiles.stages, base_ + barriers) {}

void PairRing::load(gpu::Position p, const Sequence &sequence, Val head, Val row, gpu::Keep keep) {
  ring_.waitEmpty(p);
  gpu::arriveExpect(ir_, ring_.full(p), tiles_.stageBytes());
  for (int which = 0; which < 2; ++which) {
    const KeyRows::Boxes boxes = KeyRows{sequence, operands_[which], head}.boxes();
    for (int slab = 0; slab < tiles_.slabs(which); ++slab)
      gpu::loadBox(ir_, tile(p, which) + slab * tiles_.slabBytes(),
                   ir_.offset(c_.tensor_maps, int64_t(first_map_ + which) * kTensorMapBytes),
                   boxes.at(ir_.i32(64 * slab), row), ring_.full(p), keep);
  }
}

void PairRing::clearTail(gpu::Position p, const Sequence &sequence, Val valid, Val thread, int threads,
                         int barrier) {
  ir_.ifThen(sequence.hasRowsBehind(operands_[0]) & (valid < tiles_.rows), [&] {
    Val zero = ir_.constant(ir_.vec(ir_.i32(), 4), 0);
    Val stage = ir_.offset(ir_.offset(c_.scratch, p.stage * tiles_.stageBytes()), int64_t(at_));
    // Both tiles have the same rows: their slabs follow each other.
    for (int slab = 0; slab < tiles_.slabs(0) + tiles_.slabs(1); ++slab)
      ir_.rareLoop(valid * 8 + thread, ir_.i32(tiles_.rows * 8), ir_.i32(threads), [&](Val chunk) {
        ir_.store(zero, ir_.offset(ir_.offset(stage, chunk * 16), int64_t(slab) * tiles_.slabBytes()), 16);
      });
    gpu::fenceAsyncShared(ir_);
    gpu::barrierSync(ir_, ir_.i32(barrier), threads);
  });
}

Val PairRing::rowsDescriptor(gpu::Position p, int which, Val first_row) {
  return gpu::descriptorRowsContiguousInK(ir_, tile(p, which) + first_row * 128);
}

llvm::SmallVector<int> PairRing::rowSteps(int which) const {
  llvm::SmallVector<int> steps; // the tail of the last slab is zeros
  for (int i = 0; i < (tiles_.dims[which] + 15) / 16; ++i)
    steps.push_back(i / 4 * tiles_.slabBytes() + i % 4 * 32);
  return steps;
}

Val PairRing::columnsDescriptor(gpu::Position p, int which) {
  return gpu::descriptorColumnsAreN(ir_, tile(p, which), tiles_.slabBytes());
}

Val PairRing::columnsDescriptor(gpu::Position p, int which, Val slab) {
  return gpu::descriptorColumnsAreN(ir_, tile(p, which) + slab * tiles_.slabBytes(), tiles_.slabBytes());
}

llvm::SmallVector<int> PairRing::columnSteps() const {
  llvm::SmallVector<int> steps;
  for (int i = 0; i < tiles_.rows / 16; ++i)
    steps.push_back(i * 16 * 128);
  return steps;
}

} // namespace flashplus
