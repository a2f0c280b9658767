// SPDX-License-Identifier: BSD-3-Clause
// P and dS of a tile: what a warp does between the products of a backward, on fragments with queries along
// either axis.
//   p = 2^(w log2(e) - lse), 0 where the mask hides the key    ds = h (dp - delta), h = p dw/ds
// w = score(s). A slope dw/ds may be anything, also infinite or NaN, where p is 0 and where a key is hidden:
// h is selected, not multiplied, there.
#pragma once

#include "templates/common/fragment.h"
#include "templates/common/mask.h"
#include "templates/common/score_gradient.h"
#include "templates/common/tile_dropout.h"
#include "templates/emit.h"

namespace flashplus {

/// LSEs in base 2 or deltas of the thread's query lines, one at a time, so that a kernel may read them late.
using LineValue = llvm::function_ref<Val(int line)>;

/// What a tile's dO and dP - delta are multiplied by.
struct TileWeights {
  Fragment p;
  Fragment h; ///< Without values where all slopes are 1: then it is p.
  void fields(auto &&each) { each(p, h); }

  const Fragment &ofScores() const { return h.values.empty() ? p : h; }
};

/// S = Q K^T -> weights without a mask. `tile` says which scores the thread holds (fragment.h: scoreTile).
TileWeights tileWeights(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                        const ScoreTile &tile, Fragment products, LineValue lse);

/// 0 outside [lo, hi) of line `line`, counted across from the thread's first element.
void clearOutside(Fragment &f, Axis axis, int line, Val lo, Val hi);
void clearOutside(TileWeights &w, Axis axis, int line, Val lo, Val hi);

/// dP of the dropped probabilities: 0, the others times `scale`.
Fragment dropGradient(const KeptElements &kept, Val scale, Fragment dp);

/// dP -> dS, with the weights h.
Fragment subtractDelta(const Fragment &weights, Axis queries, Fragment dp, LineValue delta);

/// The keys that a query line counts, [lo, hi), from the thread's first element on; lo absent: all below hi.
struct LineKeys {
  Val lo, hi;
};

/// S = Q K^T and dP of a tile -> what its scores give to the gradients of the score's own inputs. By whole
/// warps.
void addScoreTerms(EmitContext &c, const WorkItem &item, const Sequence &sequence, Axis queries,
                   const ScoreTile &tile, const Fragment &products, const Fragment &dp, LineValue lse,
                   LineValue delta, llvm::function_ref<LineKeys(int line)> keys, Val lane, ScoreSums &sums);

} // namespace flashplus
