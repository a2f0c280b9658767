// SPDX-License-Identifier: BSD-3-Clause
// The online softmax on fragments, in steps, so that a template may order them as its hardware likes: queries
// lie along either axis, with a maximum and a sum a query line. Maxima are base-2 scores, the same in all
// lanes of a line; sums stay each thread's own until the end.
//
// The reference that is subtracted is always the maximum: one that may fall behind (FlashAttention-4's rule)
// would spare more scaling, but the largest probability is then not 1, which the storage dtype holds exactly,
// and the error grows past the model's bound.
#pragma once

#include "templates/common/fragment.h"
#include "templates/common/score.h"

namespace flashplus::softmax {

/// What a loop over keys carries: O, in whose rows the queries are, and their maxima and sums.
struct State {
  Fragment o;
  Vals max, sum;
  void fields(auto &&each) { each(o, max, sum); }

  static State start(Ir &ir, FragmentLayout o);
};

/// A query line whose maximum a tile has raised.
struct Raised {
  Val reference; ///< What to subtract from base-2 scores.
  Val alpha;     ///< Factor for what was summed before: exactly 1 for a maximum that has not moved.
};

/// Takes the scores of line `line` into its maximum `max`; in `chains` chains, for one would be bound by
/// latency. Scores are taken before scaling, which then is one fused operation with the subtraction.
Raised raise(Ir &ir, const Fragment &s, Axis queries, int line, int chains, const TileExponents &exponents,
             Val &max);

/// Sums the lanes' sums of a line, scales O's row and returns the factor and the row's LSE (`empty` where it
/// saw no key). `scale`, if there is one, is of O alone.
Finish finishLine(Ir &ir, State &state, int line, Val empty, Val scale = {},
                  const std::optional<Sink> &sink = std::nullopt);

} // namespace flashplus::softmax
