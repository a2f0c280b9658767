// SPDX-License-Identifier: BSD-3-Clause
// sm80.backward_score: gradients of the score's own scalars and tensors, on mma.sync. It is sm80.backward_q
// (layout.h there) without its last product: S and dP of tiles of K and V that pass by the item's Q and dO,
// and then, instead of dQ += dS K, the terms of score_gradient.h. A step of its own, so that the kernels of
// dq, dk and dv are what they are without it, on every target (docs/rationale/score-parameters.md).
#include "templates/backward/sm80_backward_q/loop.h"

namespace flashplus {

void emitSm80BackwardScore(EmitContext &c) {
  using namespace sm80_backward_q;
  ItemView k(c);
  Ir &ir = c.ir;
  k.first = k.item.m * k.l.tile_m;
  ir.ifThen(k.first < k.seq.q_len, [&] {
    k.last = ir.min(k.first + k.l.tile_m, k.seq.q_len) - 1;
    k.setThread(gpu::threadId(ir));
    const KeyWalk walk{k.mask.tiles(k.first, k.last, k.l.tile_n, k.item.split, {}), k.l.tile_n};
    ir.ifThen(walk.tiles.begin < walk.tiles.end, [&] {
      const ScoreSums sums = forKeys(
          k, walk, ScoreSums::zeros(ir, *c.score),
          [](Math &math, ScoreSums &all, Val key, Val stage) { math.addScoreTerms(all, key, stage); });
      storeSums(ir, c.params, *c.score, k.item, k.seq, sums, k.lane);
    });
  });
}

} // namespace flashplus
