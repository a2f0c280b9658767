// SPDX-License-Identifier: BSD-3-Clause
// Work feeds of persistent blocks: which item a block has next, and how it passes from the warp that asks for
// it to those that compute it.
#pragma once

#include "ir/mbarrier.h"
#include "spec/kernel_spec.h"
#include "templates/common/work.h"

namespace flashplus {

/// The first item is the block's number. After it, with a counter (work_counter), the next one that no block
/// has taken: long items first then leaves nobody waiting. Without one, one of each wave of `grid` items,
/// from alternating ends.
class WorkFeed {
public:
  WorkFeed(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val block)
      : ir_(ir), params_(params), spec_(spec), block_(block) {}

  /// Query tiles of the longest sequence. The launch is planned for max_seqlen_q, which callers may put far
  /// too high: an item without rows costs as much as an atomic operation and a few loads. By the whole warp
  /// of `thread`.
  Val usedTiles(Val thread, int tile_m) const;
  /// Items with `m_tiles` tiles for each (batch, split, head).
  Val total(Val m_tiles) const;

  struct Place {
    Val in_wave, wave, item;
    void fields(auto &&each) { each(in_wave, wave, item); }
  };
  Place first() const;
  Place next(const Place &place) const;
  /// The same in two steps, by a whole warp of which `lane` is the thread's: what ask() returns is first
  /// needed by after(). An item belongs to the block that asked for it: who asks while a long item is still
  /// to be done keeps a short one waiting that others could do.
  Val ask(Val lane) const;
  Place after(const Place &place, Val asked) const;
  /// By one thread a block, at its end. The last block leaves the counter as it was found: every block has
  /// taken an item past the end by then.
  void reset() const;

private:
  static Place alternating(const Place &place, Val grid);
  Val grid() const;
  Val add(Val pointer, int value) const;

  Ir &ir_;
  const ParamReader &params_;
  const KernelSpec &spec_;
  Val block_;
};

/// Slots of shared memory through which items pass decoded: the divisions are made once and ahead of time.
class ItemSlots {
public:
  static constexpr int kBytes = 32; ///< Of a slot.

  /// Slots lie `offset` bytes into `memory` (shared); `barriers` as Pipeline's.
  ItemSlots(Ir &ir, int slots, Val barriers, Val memory, int offset)
      : ir_(ir), ring_(ir, slots, barriers), memory_(memory), offset_(offset) {}

  gpu::Pipeline &ring() { return ring_; }

  /// By one thread. `valid` (i32) is 0 for the end.
  void send(gpu::Position p, const WorkItem &item, Val valid);

  struct Received {
    WorkItem work;
    Val valid;
    void fields(auto &&each) { each(work, valid); }
  };
  /// By a whole warp, in which the values are uniform; `lane` is the thread's.
  Received receive(gpu::Position p, Val lane);

private:
  Val slot(gpu::Position p) { return ir_.offset(ir_.offset(memory_, p.stage * kBytes), offset_); }

  Ir &ir_;
  gpu::Pipeline ring_;
  Val memory_;
  int offset_;
};

} // namespace flashplus
