// SPDX-License-Identifier: BSD-3-Clause
// From global to shared memory: a warp's own ring of steps of K and V.
#pragma once

#include "templates/common/key_rows.h"
#include "templates/forward/sm80_decode/kernel.h"

namespace flashplus::sm80_decode {

class Copy {
public:
  explicit Copy(KernelView &kernel);

  /// Starts step `step` (i32, of this warp, the first is 0) of a segment, into stage `stage` (i32) of the
  /// ring; nothing where the segment has none. Two groups of copies either way: K's and V's. A row of V that
  /// is outside the item's keys is zeros: a weight of 0 would not hide an infinity. Nothing is read there.
  void step(const Segment &segment, Val step, Val stage) const;
  /// The same of one that the segment has.
  void stepThatIs(const Segment &segment, Val step, Val stage) const;

  /// Steps (i32) of this warp in a segment.
  Val steps(const Segment &segment) const;
  Val tile(const Segment &segment, Val step) const { return segment.begin + k_.warp + step * k_.l.warps; }

private:
  void keys(const Segment &segment, Val tile, Val stage) const;
  void values(const Segment &segment, Val tile, Val stage) const;
  struct Rows {
    Operand operand;
    int dim, dim_pad, pitch, base;
  };
  void rows(const Segment &segment, const Rows &rows, Val tile, Val stage) const;

  KernelView &k_;
  Ir &ir_;
};

} // namespace flashplus::sm80_decode
