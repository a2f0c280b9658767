// SPDX-License-Identifier: BSD-3-Clause
#include "ir/async_copy.h"
#include "templates/common/key_rows.h"
#include "templates/forward/decode/ring.h"

#include <numeric>

namespace flashplus::decode {
namespace {

class CopyRing final : public Ring {
public:
  using Ring::Ring;

  // Two groups of copies a step either way: K's and V's.
  void step(const Segment &segment, Val step, Position at) override {
    Val tile = this->tile(segment, step), there = tile < segment.end;
    ir_.ifThen(there, [&] { keys(segment, tile, at); });
    gpu::commitGroup(ir_);
    ir_.ifThen(there, [&] { values(segment, tile, at); });
    gpu::commitGroup(ir_);
  }

  void stepThatIs(const Segment &segment, Val step, Position at) override {
    Val tile = this->tile(segment, step);
    keys(segment, tile, at);
    gpu::commitGroup(ir_);
    values(segment, tile, at);
    gpu::commitGroup(ir_);
  }

  void waitKeys(Position) override { wait(2 * k_.l.stages - 1); }
  void waitValues(const Segment &, Val, Position) override { wait(2 * k_.l.stages - 2); }

  StepTile keys(Position at) const override {
    return StepTile::pitched(TileOperand::rows(ir_, stageAt(at, 0), k_.l.kPitch(), k_.lane));
  }
  // V^T is a left operand: its rows are V's columns. Read transposed, matrices 0 and 1 are two neighbouring
  // blocks of 8 columns for keys 0-7, 2 and 3 those for keys 8-15, which is the order of the lanes of
  // columns().
  StepTile values(Position at) const override {
    return StepTile::pitched(TileOperand::columns(ir_, stageAt(at, k_.l.v()), k_.l.vPitch(), k_.lane));
  }

private:
  void wait(int pending) {
    gpu::waitGroup(ir_, pending);
    gpu::warpSync(ir_); // what the other lanes copied
  }

  void keys(const Segment &segment, Val tile, Position at) {
    const DecodeLayout &l = k_.l;
    rows(segment, {Operand::K, l.dqk, l.dqk_pad, l.kPitch(), 0}, tile, at);
  }

  void values(const Segment &segment, Val tile, Position at) {
    const DecodeLayout &l = k_.l;
    rows(segment, {Operand::V, l.dv, l.dv_pad, l.vPitch(), l.v()}, tile, at);
  }

  struct Rows {
    Operand operand;
    int dim, dim_pad, pitch, base;
  };
  void rows(const Segment &segment, const Rows &rows, Val tile, Position at);
};

/// The lanes stand `columns` chunks of 16 bytes beside each other, and pass by pass over the tile's rows.
void CopyRing::rows(const Segment &segment, const Rows &r, Val tile, Position at) {
  const DecodeLayout &l = k_.l;
  const int columns = std::gcd(r.dim_pad / 8, 32), rows_a_pass = 32 / columns;
  const KeyRows source{segment.sequence, r.operand, segment.item.head_k};
  Val row = k_.lane / columns, column = k_.lane % columns;
  Val to = ir_.offset(stageAt(at, r.base), row * r.pitch + column * 16);
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
      Val dest = ir_.offset(to, pass * r.pitch + c * 16), source_at = ir_.offset(from, c * 16), data = valid;
      if ((c + columns) * 8 > r.dim) {
        // Head dims are multiples of 8 here, so a chunk is all data or all padding, for which some address
        // inside the row does.
        Val real = column + c < r.dim / 8;
        data = data ? data & real : real;
        source_at = ir_.select(real, source_at, ir_.offset(from, column * -16));
      }
      gpu::copyAsync16(ir_, dest, source_at, data ? ir_.select(data, ir_.i32(16), ir_.i32(0)) : Val{}, l.l2);
    }
  }
}

} // namespace

std::unique_ptr<Ring> copyRing(KernelView &kernel) { return std::make_unique<CopyRing>(kernel); }

} // namespace flashplus::decode
