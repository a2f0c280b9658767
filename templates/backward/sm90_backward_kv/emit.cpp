// SPDX-License-Identifier: BSD-3-Clause
#include "ir/tma.h"
#include "ir/warpgroup.h"
#include "templates/backward/sm90_backward_kv/kernel.h"

namespace flashplus {

void emitSm90BackwardKV(EmitContext &c) {
  sm90_backward_kv::Rings rings(c);
  Ir &ir = c.ir;
  const WarpgroupShares shares = rings.l.shares();
  const int math_warps = 4 * shares.math;
  ir.ifThen(rings.thread == 0, [&] {
    for (int i = 0; i < 4; ++i)
      gpu::prefetchMap(ir, ir.offset(c.tensor_maps, int64_t(i) * kTensorMapBytes));
    rings.keys.ring().init(1, math_warps);
    rings.queries.ring().init(2, math_warps);
    rings.items.ring().init(1, math_warps + 1);
    rings.weights.init(math_warps, math_warps);
    gpu::fenceBarrierInit(ir);
  });
  gpu::barrier(ir);
  Val warp = gpu::uniformWarp(ir, rings.thread);
  ir.ifElse(
      warp >= math_warps,
      [&]() -> Vals {
        gpu::decreaseRegisters(ir, shares.copyRegisters());
        ir.ifThen(warp == math_warps, [&] {
          const WorkFeed feed(ir, c.params, c.spec, c.work_item);
          ir.ifThen(gpu::electOne(ir), [&] { sm90_backward_kv::copyItems(rings, feed); });
        });
        ir.ifThen(warp == math_warps + 1, [&] { sm90_backward_kv::copyRowValues(rings); });
        return {};
      },
      [&]() -> Vals {
        gpu::increaseRegisters(ir, shares.mathRegisters());
        sm90_backward_kv::computeItems(rings, warp);
        return {};
      });
}

void emitSm90Backward(EmitContext &c) { emitSm90BackwardKV(c); }

} // namespace flashplus
