// SPDX-License-Identifier: BSD-3-Clause
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "templates/forward/sm90_flash/kernel.h"

namespace flashplus {

void emitSm90Flash(EmitContext &c) {
  sm90_flash::Rings rings(c);
  Ir &ir = c.ir;
  const Sm90FlashLayout &l = rings.l;
  const int math_warps = 4 * l.mathWarpgroups();
  ir.ifThen(rings.thread == 0, [&] {
    for (int i = 0; i < 3; ++i)
      gpu::prefetchMap(ir, ir.offset(c.tensor_maps, int64_t(i) * kTensorMapBytes));
    for (gpu::Pipeline *ring : {&rings.q, &rings.k, &rings.v, &rings.items.ring()})
      ring->init(1, math_warps);
    gpu::fenceBarrierInit(ir);
  });
  gpu::barrier(ir);
  Val warp = gpu::uniformWarp(ir, rings.thread);
  ir.ifElse(
      warp >= math_warps,
      [&]() -> Vals {
        gpu::decreaseRegisters(ir, l.copyRegisters());
        ir.ifThen(warp == math_warps, [&] {
          const WorkFeed feed(ir, c.params, c.spec, c.work_item);
          if (l.by_lengths)
            return sm90_flash::copyItemsByLengths(rings, feed);
          Val m_tiles = feed.usedTiles(rings.thread, l.tile_m);
          ir.ifThen(gpu::electOne(ir), [&] { sm90_flash::copyItems(rings, feed, m_tiles); });
        });
        return {};
      },
      [&]() -> Vals {
        gpu::increaseRegisters(ir, l.mathRegisters());
        sm90_flash::computeItems(rings, warp);
        return {};
      });
}

} // namespace flashplus
