// SPDX-License-Identifier: BSD-3-Clause
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "templates/common/key_rows.h"
#include "templates/forward/decode/ring.h"

namespace flashplus::decode {
namespace {

class BoxRing final : public Ring {
public:
  explicit BoxRing(KernelView &kernel)
      : Ring(kernel), barriers_(gpu::sharedAddress(ir_, k_.shared(k_.l.barriers())) +
                                k_.warp * (k_.l.stages * 2 * DecodeLayout::kBarrierBytes)) {}

  void init() override {
    ir_.ifThen(gpu::electOne(ir_), [&] {
      for (int i = 0; i < 2; ++i)
        gpu::prefetchMap(ir_, map(i));
      for (int i = 0; i < 2 * k_.l.stages; ++i)
        gpu::initBarrier(ir_, barriers_ + i * DecodeLayout::kBarrierBytes, 1);
      gpu::fenceBarrierInit(ir_);
    });
    gpu::warpSync(ir_);
  }

  void step(const Segment &segment, Val step, Position at) override {
    Val tile = this->tile(segment, step);
    ir_.ifThen(gpu::electOne(ir_), [&] {
      ir_.ifElse(
          tile < segment.end, [&] { return copy(segment, tile, at), Vals(); },
          [&] {
            for (int i = 0; i < 2; ++i)
              gpu::arrive(ir_, barrier(at, i), ir_.boolean(true));
            return Vals();
          });
    });
  }

  void stepThatIs(const Segment &segment, Val step, Position at) override {
    Val tile = this->tile(segment, step);
    ir_.ifThen(gpu::electOne(ir_), [&] { copy(segment, tile, at); });
  }

  void waitKeys(Position at) override { gpu::waitBarrier(ir_, barrier(at, 0), at.phase); }

  void waitValues(const Segment &segment, Val tile, Position at) override {
    gpu::waitBarrier(ir_, barrier(at, 1), at.phase);
    const DecodeLayout &l = k_.l;
    Val first = tile * l.tile_n, edge = first + l.tile_n > segment.end_key;
    if (k_.c.spec.bounded_left)
      edge = edge | (first < segment.first_key);
    ir_.ifThen(edge, [&] { clearOutside(segment, first, at); });
  }

  void pass(Position at) override {
    for (int i = 0; i < 2; ++i)
      gpu::waitBarrier(ir_, barrier(at, i), at.phase);
  }

  StepTile keys(Position at) const override {
    return StepTile::swizzled(ir_, stageAt(at, 0), k_.lane % 16, k_.lane / 16, k_.l.slab());
  }
  StepTile values(Position at) const override {
    return StepTile::swizzled(ir_, stageAt(at, k_.l.v()), k_.lane % 8 + k_.lane / 16 * 8, k_.lane / 8 % 2,
                              k_.l.slab());
  }

private:
  Val map(int i) const { return ir_.offset(k_.c.tensor_maps, int64_t(i) * kTensorMapBytes); }
  /// Of K (0) or V (1).
  Val barrier(Position at, int i) const {
    return barriers_ + at.stage * (2 * DecodeLayout::kBarrierBytes) + i * DecodeLayout::kBarrierBytes;
  }

  /// By one lane.
  void copy(const Segment &segment, Val tile, Position at) {
    const DecodeLayout &l = k_.l;
    Val first = tile * l.tile_n;
    boxes(segment, Operand::K, first, at, {0, l.kSlabs(), 0});
    boxes(segment, Operand::V, first, at, {1, l.vSlabs(), l.v()});
  }

  struct Boxes {
    int map, slabs, base;
  };
  void boxes(const Segment &segment, Operand operand, Val first, Position at, const Boxes &b) {
    const KeyRows::Boxes rows = KeyRows{segment.sequence, operand, segment.item.head_k}.boxes();
    Val to = gpu::sharedAddress(ir_, stageAt(at, b.base)), full = barrier(at, b.map);
    gpu::arriveExpect(ir_, full, b.slabs * k_.l.slab());
    for (int slab = 0; slab < b.slabs; ++slab)
      gpu::loadBox(ir_, to + slab * k_.l.slab(), map(b.map), rows.at(ir_.i32(64 * slab), first), full,
                   gpu::Keep::First);
  }

  /// Rows of V that are none of the item's keys become zeros. They may be anybody's: a box ends with the
  /// tensor, not with the sequence.
  void clearOutside(const Segment &segment, Val first, Position at) {
    const DecodeLayout &l = k_.l;
    const int lanes = 32 / l.tile_n; // that share a row
    Val row = k_.lane % l.tile_n, key = first + row, outside = key >= segment.end_key;
    if (k_.c.spec.bounded_left)
      outside = outside | (key < segment.first_key);
    Val to = ir_.offset(stageAt(at, l.v()), row * 128 + k_.lane / l.tile_n * (128 / lanes));
    ir_.ifThen(outside, [&] {
      for (int slab = 0; slab < l.vSlabs(); ++slab)
        for (int byte = 0; byte < 128 / lanes; byte += 16)
          ir_.store(ir_.constant(ir_.vec(ir_.i32(), 4), 0), ir_.offset(to, slab * l.slab() + byte), 16);
      gpu::fenceAsyncShared(ir_); // before the next box goes there
    });
    gpu::warpSync(ir_);
  }

  const Val barriers_;
};

} // namespace

std::unique_ptr<Ring> boxRing(KernelView &kernel) { return std::make_unique<BoxRing>(kernel); }

} // namespace flashplus::decode
