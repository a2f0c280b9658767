// SPDX-License-Identifier: BSD-3-Clause
// PairRing: a ring of shared-memory stages with two operands' tiles each, filled with TMA and read by wgmma.
#pragma once

#include "ir/mbarrier.h"
#include "ir/tma.h"
#include "templates/backward/sm90_pair/layout.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

namespace flashplus {

class PairRing {
public:
  /// Tiles lie `at` bytes into shared memory, barriers `barriers` bytes. The operands have tensor maps
  /// `first_map` and the one after it, with boxes of the tiles' rows and 64 columns.
  PairRing(EmitContext &c, const PairTiles &tiles, Operand first, Operand second, int first_map, int at,
           int barriers);

  gpu::Pipeline &ring() { return ring_; }
  gpu::Position next(gpu::Position p) { return ring_.next(p); }

  /// Fills a stage, once it is free, with the rows of `head` (i32) from `row` (i32) on. By one thread.
  void load(gpu::Position p, const Sequence &sequence, Val head, Val row, gpu::Keep keep);

  /// Zeros for all rows from `valid` (i32) on, where there are any and they may be somebody else's data
  /// (TMA has zeros only where the tensor ends): a weight of 0 does not hide an infinity or a NaN. By all
  /// `threads` threads that compute, of which this is `thread`, which meet at named barrier `barrier`:
  /// outside of turns (Turns), for which a warpgroup would wait.
  void clearTail(gpu::Position p, const Sequence &sequence, Val valid, Val thread, int threads, int barrier);

  /// Descriptors and steps of tile `which` as an operand of wgmma. Rows as M or N, columns as K; `first_row`
  /// (i32, a multiple of 8) is the first that is meant.
  Val rowsDescriptor(gpu::Position p, int which, Val first_row);
  llvm::SmallVector<int> rowSteps(int which) const;
  /// Rows as K, columns as N.
  Val columnsDescriptor(gpu::Position p, int which);
  /// The same from slab `slab` (i32) on.
  Val columnsDescriptor(gpu::Position p, int which, Val slab);
  llvm::SmallVector<int> columnSteps() const;

private:
  Val tile(gpu::Position p, int which) {
    return base_ + p.stage * tiles_.stageBytes() + (at_ + (which ? tiles_.tileBytes(0) : 0));
  }

  EmitContext &c_;
  Ir &ir_;
  const PairTiles tiles_;
  const Operand operands_[2];
  const int first_map_, at_;
  Val base_; ///< Of shared memory, as its instructions address it.
  gpu::Pipeline ring_;
};

} // namespace flashplus
