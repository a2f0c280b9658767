// SPDX-License-Identifier: BSD-3-Clause
// P and dS of a tile: what a warp does between the products of a backward, on fragments with queries along
// either axis.
//   p = 2^(w log2(e) - lse), 0 where the mask hides the key    ds = p (dp - delta) dw/ds
// w = score(s). Only scores whose derivative is 1 so far: a slope is worked out where exponentials() reads
// the scores, and multiplies the weights that subtractDelta() takes; it may be anything where a key is
// hidden, so it is masked with them.
#pragma once

#include "templates/common/fragment.h"
#include "templates/common/mask.h"
#include "templates/emit.h"

namespace flashplus {

/// LSEs in base 2 or deltas of the thread's query lines, one at a time, so that a kernel may read them late.
using LineValue = llvm::function_ref<Val(int line)>;

/// S = Q K^T -> P without a mask. `tile` says which scores the thread holds (fragment.h: scoreTile).
Fragment exponentials(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                      const ScoreTile &tile, Fragment products, LineValue lse);

/// 0 outside [lo, hi) of line `line`, counted across from the thread's first element.
void clearOutside(Fragment &f, Axis axis, int line, Val lo, Val hi);

/// dP -> dS, with the weights P.
Fragment subtractDelta(const Fragment &weights, Axis queries, Fragment dp, LineValue delta);

} // namespace flashplus
