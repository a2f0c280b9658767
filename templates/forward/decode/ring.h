// SPDX-License-Identifier: BSD-3-Clause
// A warp's own ring of steps of K and V in shared memory: what fills it, tells when a step is there and where
// ldmatrix finds it. Steps are started in order, each stage only after every lane has read what was in it.
#pragma once

#include "ir/mbarrier.h"
#include "templates/common/tile_product.h"
#include "templates/forward/decode/kernel.h"

#include <memory>

namespace flashplus::decode {

/// A step's K or V, as the lanes of a warp address its 16 x 16 blocks for ldmatrix.
struct StepTile {
  /// Rows `pitch` bytes apart.
  static StepTile pitched(const TileOperand &rows) { return {rows.lane, {}, rows.pitch, 0}; }
  /// Slabs of 64 columns (128 bytes), `slab` bytes apart, whose rows of 16-byte chunks are swizzled: chunk c
  /// of row r lies in place c ^ r % 8. The lane reads row `row` and chunk `chunk` (0 or 1) of a block.
  static StepTile swizzled(Ir &ir, Val tile, Val row, Val chunk, int slab) {
    return {ir.offset(tile, row * 128), (chunk ^ row % 8) * 16, 128, slab};
  }

  /// Pointer for the block at row `row` and column byte `column`, multiples of 16 and of 32.
  Val at(Ir &ir, int row, int column) const {
    if (!slab)
      return ir.offset(lane, row * pitch + column);
    return ir.offset(ir.offset(lane, chunk ^ column % 128), row * pitch + column / 128 * slab);
  }

  Val lane, chunk;
  int pitch, slab;
};

class Ring {
public:
  using Position = gpu::Position;

  explicit Ring(KernelView &kernel) : k_(kernel), ir_(kernel.ir) {}
  virtual ~Ring() = default;

  /// By the warp, before its first step; touches no tensor.
  virtual void init() {}
  /// Starts step `step` (i32, of this warp, the first is 0) of a segment; where the segment has none, its
  /// place in the ring is filled with nothing and passes all the same. A row of V that is outside the item's
  /// keys is zeros by the time that it is read: a weight of 0 would not hide an infinity.
  virtual void step(const Segment &segment, Val step, Position at) = 0;
  /// The same of one that the segment has.
  virtual void stepThatIs(const Segment &segment, Val step, Position at) = 0;
  /// Until the step's K is there for all lanes; then its V, whose first key is that of tile `tile`.
  virtual void waitKeys(Position at) = 0;
  virtual void waitValues(const Segment &segment, Val tile, Position at) = 0;
  /// By the warp, in a place that was filled with nothing, before it is filled again.
  virtual void pass(Position) {}
  virtual StepTile keys(Position at) const = 0;
  virtual StepTile values(Position at) const = 0;

  Position start() const { return {ir_.i32(0), ir_.i32(0)}; }
  Position next(Position at) const {
    Val last = at.stage == k_.l.stages - 1;
    return {ir_.select(last, ir_.i32(0), at.stage + 1), ir_.select(last, at.phase ^ 1, at.phase)};
  }
  /// Steps (i32) of this warp in a segment, and the key tile of one.
  Val steps(const Segment &segment) const {
    Val left = segment.end - segment.begin - k_.warp;
    return ir_.max(ir_.i32(0), (left + (k_.l.warps - 1)) / k_.l.warps);
  }
  Val tile(const Segment &segment, Val step) const { return segment.begin + k_.warp + step * k_.l.warps; }

protected:
  /// Pointer to `base` bytes into the warp's stage.
  Val stageAt(Position at, int base) const {
    return k_.shared(base, k_.warp * k_.l.ring() + at.stage * k_.l.stage());
  }

  KernelView &k_;
  Ir &ir_;
};

/// By cp.async, row by row: whatever finds rows, 16 bytes a lane (sm_80).
std::unique_ptr<Ring> copyRing(KernelView &kernel);
/// By TMA, a box of 64 columns at a time, with two mbarriers a stage (sm_90a).
std::unique_ptr<Ring> boxRing(KernelView &kernel);

} // namespace flashplus::decode
