// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/result_rows.h"
#include "templates/forward/sm80_flash/copy.h"
#include "templates/forward/sm80_flash/math.h"
#include "templates/forward/sm80_flash/store.h"

namespace flashplus {
namespace sm80_flash {
namespace {

struct Progress {
  softmax::State state;
  Val odd; ///< Of two stages, the one that is computed on; i32.
  void fields(auto &&each) { each(state, odd); }
};

/// One tile after the other. At least one tile.
softmax::State loop(ItemView &k, Copy &copy, Math &math, const KeyWalk &walk) {
  Ir &ir = k.ir;
  const Sm80FlashLayout &l = k.l;
  const bool twice = l.stages == 2;
  copy.queries();
  copy.keys(walk.first(), {});
  if (twice)
    copy.values(walk.first(), {});
  copy.commit();
  const Progress start{softmax::State::start(ir, k.o_layout), twice ? ir.i32(0) : Val{}};
  return walk
      .forAll(ir, start,
              [&](Val tile, const Progress &now) {
                Val k_stage, v_stage, other;
                if (twice) {
                  k_stage = now.odd * l.kStage();
                  v_stage = now.odd * l.vStage();
                  other = now.odd ^ 1;
                }
                copy.arrive();
                if (twice) {
                  ir.ifThen(walk.hasNext(tile), [&] {
                    copy.keys(walk.next(tile), other * l.kStage());
                    copy.values(walk.next(tile), other * l.vStage());
                  });
                  copy.commit();
                } else {
                  copy.values(tile, {});
                  copy.commit();
                }
                Fragment s = math.multiplyQK(k_stage);
                if (!twice) {
                  copy.arrive();
                  ir.ifThen(walk.hasNext(tile), [&] { copy.keys(walk.next(tile), {}); });
                  copy.commit();
                }
                return Progress{math.update(std::move(s), walk.key(tile), now.state, v_stage), other};
              })
      .state;
}

} // namespace
} // namespace sm80_flash

void emitSm80Flash(EmitContext &c) {
  using namespace sm80_flash;
  ItemView k(c);
  Ir &ir = c.ir;
  k.first = k.item.m * k.l.tile_m;
  ir.ifThen(k.first < k.seq.q_len, [&] {
    k.last = ir.min(k.first + k.l.tile_m, k.seq.q_len) - 1;
    k.setThread(gpu::threadId(ir));
    Copy copy(k);
    Math math(k);
    const KeyWalk walk{k.mask.tiles(k.first, k.last, k.l.tile_n, k.item.split,
                                    c.spec.sharesKeys() ? c.params.get("num_splits") : Val{}),
                       k.l.tile_n};
    countTiles(
        ir, c.params, [&] { return walk.tiles.count(); },
        [&](Val counting) { return counting & (k.thread == 0); });
    const softmax::State state = carry::ifElse(
        ir, walk.tiles.begin < walk.tiles.end, [&] { return loop(k, copy, math, walk); },
        [&] { return softmax::State::start(ir, k.o_layout); });
    storeResults(k, state);
  });
}

} // namespace flashplus
