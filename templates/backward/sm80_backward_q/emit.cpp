// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/gradient_rows.h"
#include "templates/backward/sm80_backward_q/loop.h"
#include "templates/common/result_rows.h"

namespace flashplus {
namespace sm80_backward_q {
namespace {


/// Through Q's memory. Works out the thread and the item anew, so that no register holds them through the
/// loop.
void store(ItemView &k, const Fragment &dq) {
  Ir &ir = k.ir;
  const Sm80BackwardQLayout &l = k.l;
  k.setThread(gpu::again(ir, gpu::threadId(ir)));
  k.item = decodeWorkItem(ir, k.c.params, k.c.spec, gpu::again(ir, k.c.work_item));
  const Sequence sequence(ir, k.c.params, k.item.batch, /*keys=*/std::nullopt);
  Val first = k.item.m * l.tile_m, last = ir.min(first + l.tile_m, sequence.q_len) - 1;
  if (l.stages == 2)
    gpu::barrier(ir); // every warp is done with Q; with one stage a barrier ends every tile
  storeFragment(ir, k.dtype, dq, k.c.params.get("softmax_scale"), k.lane,
                k.shared(l.q(), k.warp_row * l.qkPitch()), l.qkPitch());
  gpu::barrier(ir);
  storeRows(ir, k.c.params, k.c.spec, sequence,
            {Operand::DQ, k.item.head, first, last, ir.offset(k.c.scratch, int64_t(l.q())), l.tile_m, l.dqk,
             l.qkPitch()},
            k.thread, l.threads());
}

} // namespace
} // namespace sm80_backward_q

void emitSm80BackwardQ(EmitContext &c) {
  using namespace sm80_backward_q;
  ItemView k(c);
  Ir &ir = c.ir;
  k.first = k.item.m * k.l.tile_m;
  ir.ifThen(k.first < k.seq.q_len, [&] {
    k.last = ir.min(k.first + k.l.tile_m, k.seq.q_len) - 1;
    k.setThread(gpu::threadId(ir));
    const KeyWalk walk{k.mask.tiles(k.first, k.last, k.l.tile_n, k.item.split, {}), k.l.tile_n};
    const Fragment dq = carry::ifElse(
        ir, walk.tiles.begin < walk.tiles.end,
        [&] {
          return forKeys(k, walk, Fragment::filled(k.dq_layout, ir.f32(0)),
                         [](Math &math, Fragment &sums, Val key, Val stage) { math.add(sums, key, stage); });
        },
        [&] { return Fragment::filled(k.dq_layout, ir.f32(0)); });
    store(k, dq);
  });
}

} // namespace flashplus
