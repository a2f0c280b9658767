// SPDX-License-Identifier: BSD-3-Clause
// The loop of sm80.backward_q over tiles of keys, which sm80.backward_score shares.
#pragma once

#include "templates/backward/sm80_backward_q/copy.h"
#include "templates/backward/sm80_backward_q/math.h"

namespace flashplus::sm80_backward_q {

template <class Sums> struct Progress {
  Sums sums;
  Val odd; ///< Of two stages, the one that is computed on; i32.
  void fields(auto &&each) { each(sums, odd); }
};

/// add(math, sums, first key, stage) for one tile of keys after the other; at least one. `zeros` is what
/// the sums are before.
template <class Sums, class Add> Sums forKeys(ItemView &k, const KeyWalk &walk, Sums zeros, Add add) {
  Ir &ir = k.ir;
  const bool twice = k.l.stages == 2;
  Copy copy(k);
  Math math(k);
  copy.queries();
  copy.keys(walk.key(walk.first()), {});
  copy.commit();
  const Progress<Sums> start{std::move(zeros), twice ? ir.i32(0) : Val{}};
  return walk
      .forAll(ir, start,
              [&](Val tile, Progress<Sums> now) {
                Val other = twice ? now.odd ^ 1 : Val{};
                auto loadNext = [&] {
                  ir.ifThen(walk.hasNext(tile), [&] { copy.keys(walk.key(walk.next(tile)), other); });
                  copy.commit();
                };
                copy.arrive();
                if (twice)
                  loadNext();
                add(math, now.sums, walk.key(tile), now.odd);
                if (!twice) {
                  gpu::barrier(ir); // every warp is done with the buffers
                  loadNext();
                }
                return Progress<Sums>{std::move(now.sums), other};
              })
      .sums;
}

} // namespace flashplus::sm80_backward_q
