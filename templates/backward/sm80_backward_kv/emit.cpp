// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/gradient_rows.h"
#include "templates/backward/sm80_backward_kv/copy.h"
#include "templates/backward/sm80_backward_kv/math.h"
#include "templates/common/result_rows.h"

namespace flashplus {
namespace sm80_backward_kv {
namespace {

struct Progress {
  Sums sums;
  QueryWalk::Place place;
  Val odd; ///< Of two stages, the one that is computed on; i32.
  void fields(auto &&each) { each(sums, place, odd); }
};

/// One tile of queries after the other. At least one.
Sums loop(ItemView &k, Copy &copy, Math &math, const QueryWalk &walk) {
  Ir &ir = k.ir;
  const bool twice = k.l.stages == 2;
  copy.keys();
  copy.queries(walk, walk.first(), {});
  copy.commit();
  const Progress start{Sums::start(k), walk.first(), twice ? ir.i32(0) : Val{}};
  return carry::forLoop(ir, ir.i32(0), walk.steps, ir.i32(1), start,
                        [&](Val step, Progress now) {
                          const QueryWalk::Place next = walk.next(now.place);
                          Val other = twice ? now.odd ^ 1 : Val{};
                          auto loadNext = [&] {
                            ir.ifThen(step + 1 < walk.steps, [&] { copy.queries(walk, next, other); });
                            copy.commit();
                          };
                          copy.arrive();
                          if (twice)
                            loadNext();
                          math.add(now.sums, now.place.head, walk.query(now.place), now.odd);
                          if (!twice) {
                            gpu::barrier(ir); // every warp is done with the buffers
                            loadNext();
                          }
                          return Progress{std::move(now.sums), next, other};
                        })
      .sums;
}

/// Through K's and V's memory. Works out the thread and the item anew, so that no register holds them through
/// the loop.
void store(ItemView &k, const Sums &sums) {
  Ir &ir = k.ir;
  const Sm80BackwardKVLayout &l = k.l;
  k.setThread(gpu::again(ir, gpu::threadId(ir)));
  k.item = decodeWorkItem(ir, k.c.params, k.c.spec, gpu::again(ir, k.c.work_item), HeadsOfItem::Keys);
  const Sequence sequence(ir, k.c.params, k.item.batch);
  Val first = k.item.m * l.tile_n, last = ir.min(first + l.tile_n, sequence.k_len) - 1;
  auto own = [&](int tile, int pitch, int pad) {
    return k.shared(tile, k.warp_key * pitch + k.part * (pad / l.parts * 2));
  };
  if (l.parts == 1 && l.stages == 2)
    gpu::barrier(ir); // every warp is done with K and V; else one came after they were last read
  storeFragment(ir, k.dtype, sums.dk, k.c.params.get("softmax_scale"), k.lane,
                own(l.k(), l.qkPitch(), l.dqk_pad), l.qkPitch());
  Val dv_scale = k.c.spec.dropout ? k.c.params.get("drop_scale") : Val{};
  storeFragment(ir, k.dtype, sums.dv, dv_scale, k.lane, own(l.v(), l.vPitch(), l.dv_pad), l.vPitch());
  gpu::barrier(ir);
  auto rows = [&](Operand operand, int tile, int dim, int pitch) {
    storeRows(
        ir, k.c.params, k.c.spec, sequence,
        {operand, k.item.head_k, first, last, ir.offset(k.c.scratch, int64_t(tile)), l.tile_n, dim, pitch},
        k.thread, l.threads());
  };
  rows(Operand::DK, l.k(), l.dqk, l.qkPitch());
  rows(Operand::DV, l.v(), l.dv, l.vPitch());
}

} // namespace
} // namespace sm80_backward_kv

void emitSm80BackwardKV(EmitContext &c) {
  using namespace sm80_backward_kv;
  ItemView k(c);
  Ir &ir = c.ir;
  k.first = k.item.m * k.l.tile_n;
  ir.ifThen(k.first < k.seq.k_len, [&] {
    k.last = ir.min(k.first + k.l.tile_n, k.seq.k_len) - 1;
    k.setThread(gpu::threadId(ir));
    Copy copy(k);
    Math math(k);
    const QueryWalk walk(k.mask.queries(k.first, k.last), k.l.tile_m, k.item.group);
    // The backward's pairs of tiles: backward_q does not count them again.
    countTiles(
        ir, c.params, [&] { return walk.steps; }, [&](Val counting) { return counting & (k.thread == 0); });
    const Sums sums = carry::ifElse(
        ir, walk.steps > 0, [&] { return loop(k, copy, math, walk); }, [&] { return Sums::start(k); });
    store(k, sums);
  });
}

} // namespace flashplus
