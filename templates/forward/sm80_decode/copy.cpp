// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm80_decode/copy.h"

#include "ir/async_copy.h"

#include <numeric>

namespace flashplus::sm80_decode {

Copy::Copy(KernelView &kernel) : k_(kernel), ir_(kernel.ir) {}

Val Copy::steps(const Segment &segment) const {
  Val left = segment.end - segment.begin - k_.warp;
  return ir_.max(ir_.i32(0), (left + (k_.l.warps - 1)) / k_.l.warps);
}

void Copy::step(const Segment &segment, Val step, Val stage) const {
  Val tile = this->tile(segment, step), there = tile < segment.end;
  ir_.ifThen(there, [&] { keys(segment, tile, stage); });
  gpu::commitGroup(ir_);
  ir_.ifThen(there, [&] { values(segment, tile, stage); });
  gpu::commitGroup(ir_);
}

void Copy::stepThatIs(const Segment &segment, Val step, Val stage) const {
  Val tile = this->tile(segment, step);
  keys(segment, tile, stage);
  gpu::commitGroup(ir_);
  values(segment, tile, stage);
  gpu::commitGroup(ir_);
}

void Copy::keys(const Segment &segment, Val tile, Val stage) const {
  const Sm80DecodeLayout &l = k_.l;
  rows(segment, {Operand::K, l.dqk, l.dqk_pad, l.kPitch(), 0}, tile, stage);
}

void Copy::values(const Segment &segment, Val tile, Val stage) const {
  const Sm80DecodeLayout &l = k_.l;
  rows(segment, {Operand::V, l.dv, l.dv_pad, l.vPitch(), l.v()}, tile, stage);
}

/// The lanes stand `columns` chunks of 16 bytes beside each other, and pass by pass over the tile's rows.
void Copy::rows(const Segment &segment, const Rows &r, Val tile, Val stage) const {
  const Sm80DecodeLayout &l = k_.l;
  const int columns = std::gcd(r.dim_pad / 8, 32), rows_a_pass = 32 / columns;
  const KeyRows source{segment.sequence, r.operand, segment.item.head_k};
  Val row = k_.lane / columns, column = k_.lane % columns;
  Val to = k_.shared(r.base, k_.warp * l.ring() + stage * l.stage() + row * r.pitch + column * 16);
  Val first = tile * l.tile_n + row;
  const bool value = r.operand == Operand::V;
  for (int pass = 0; pass < l.tile_n; pass += rows_a_pass) {
    Val key = first + pass, inside = ir_.min(key, segment.end_key - 1);
    Val valid = value ? key < segment.end_key : Val{};
    if (k_.c.spec.bounded_left) {
      inside = ir_.max(inside, segment.first_key);
      valid = value ? valid & (key >= segment.first_key) : Val{};
    }
    Val from = ir_.offset(source.row(inside, k_.bytes), column * 16);
    for (int c = 0; c < r.dim_pad / 8; c += columns) {
      Val dest = ir_.offset(to, pass * r.pitch + c * 16), at = ir_.offset(from, c * 16), data = valid;
      if ((c + columns) * 8 > r.dim) {
        // Head dims are multiples of 8 here, so a chunk is all data or all padding, for which some address
        // inside the row does.
        Val real = column + c < r.dim / 8;
        data = data ? data & real : real;
        at = ir_.select(real, at, ir_.offset(from, column * -16));
      }
      gpu::copyAsync16(ir_, dest, at, data ? ir_.select(data, ir_.i32(16), ir_.i32(0)) : Val{}, l.l2);
    }
  }
}

} // namespace flashplus::sm80_decode
