// SPDX-License-Identifier: BSD-3-Clause
// A score region on all the scores of a tile that one GPU thread holds: what the elements of a row have in
// common is computed once a row, what is linear in the key is one fused operation an element, and scaling is
// left to the softmax, which multiplies anyway. An fp32 operation an element costs a Hopper kernel about 5 %
// (docs/performance.md).
#pragma once

#include "ir/ir.h"
#include "templates/common/score.h"
#include "templates/common/sequence.h"
#include "templates/common/work.h"

namespace flashplus {

/// Which scores a thread holds. The key of an element is `key` + its offset.
struct ScoreTile {
  struct Element {
    int row;    ///< Index into `rows`.
    int offset; ///< From `key`, at least 0.
  };
  Vals rows; ///< Query rows, i32.
  Val key;   ///< i32
  std::vector<Element> elements;
  bool short_cuts = true; ///< Allowed: each is a second version of the softmax's code, which costs registers.
  Vals heads = {};        ///< Query heads of the rows, i32; empty where all are of the work item's.
};

/// Scores in pieces: score x = values[x] * factor + shift[row of x].
struct TileScores {
  Vals values;
  Val factor;  ///< One for all elements; any sign, may be 0.
  Vals shift;  ///< One a row, of this thread alone; empty if all are 0.
  Vals slopes; ///< Derivatives by the region's score, one an element; empty if all are 1, and in a forward.
  std::vector<ScoreDerivative> derivatives; ///< By the score's own inputs, of a tile without short cuts.
};

/// Evaluates `region` on Q K^T, which times `softmax_scale` is the region's score. The thread's whole warp
/// must be here. Rows and keys past the sequence are allowed: their value means nothing, and auxiliary
/// tensors are read inside their bounds anyway. Scores are exact to a few units of fp32's last place, with
/// two short cuts that the warp takes together, tile by tile, where all its elements allow it:
///   tanh(x)  x P(x^2) for |x| <= 1/2, relative error 6e-7; else 2 / (1 + e^(-2x)) - 1
///   abs(d)   d or -d, where d is linear in the key and does not change its sign
TileScores tileScores(Ir &ir, const ParamReader &params, mlir::Region &region, const WorkItem &item,
                      const Sequence &sequence, const ScoreTile &tile, Vals products, Val softmax_scale);

/// The softmax's view of them: base-2 scores, values[x] * scale + shift[row]. `scale` is positive, whatever
/// the factor's sign: that goes into the values (`sign`: -1 or 1), where they are masked, so that the largest
/// value is the largest score. A factor of 0 must not meet a masked value's infinity.
struct TileExponents {
  TileExponents(Ir &ir, const TileScores &scores);

  bool shifted() const { return !shift_.empty(); }
  Val score(Val value, int row) const; ///< The base-2 score of one value.
  Val minus(Val reference,
            int row) const; ///< 2^(value * scale + minus) is the probability relative to the reference.

  Val negative; ///< i1: `sign` is -1.
  Val sign, scale;

private:
  Ir &ir_;
  Vals shift_;
};

} // namespace flashplus
