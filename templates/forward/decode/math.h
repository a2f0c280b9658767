// SPDX-License-Identifier: BSD-3-Clause
// A warp's arithmetic on its steps: S^T = K Q^T, the softmax along S^T's columns, O^T += V^T P^T.
#pragma once

#include "templates/common/softmax.h"
#include "templates/forward/decode/ring.h"

namespace flashplus::decode {

/// Of one item.
class Math {
public:
  /// Reads Q, whose fragments stay in registers. By whole warps.
  Math(KernelView &kernel, const Segment &segment);

  /// What a loop over the item's keys begins with; maxima and sums are of this warp's keys, the sums of this
  /// thread's.
  softmax::State start() const;

  /// S^T of a step whose K has arrived, as products.
  Fragment products(const StepTile &keys) const;
  /// Takes its scores into the maxima; what is left to do is `accumulate`, once V is there.
  struct Weights {
    Fragment p; ///< Probabilities relative to the maxima.
    softmax::State state;
  };
  Weights weights(Fragment products, Val tile, softmax::State state) const;
  softmax::State accumulate(Weights weights, const StepTile &values) const;

private:
  Fragment masked(Fragment s, Val key, const TileExponents &exponents) const;

  KernelView &k_;
  Ir &ir_;
  const Segment &segment_;
  std::vector<Vals> q_;  ///< [column block]: B operands, two registers for 16 columns of Q.
  Vals queries_, heads_; ///< Of the thread's columns.
};

} // namespace flashplus::decode
