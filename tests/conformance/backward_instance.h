// SPDX-License-Identifier: BSD-3-Clause
// A BackwardCase with memory. Inputs outside the valid tokens are NaN, o, lse, dout and dlse as well; so are
// dq, dk, dv and delta before a run. The lse of a row that sees no key is garbage: an infinity, NaN, or a
// number of any size.
#pragma once

#include "reference/compare_backward.h"
#include "tests/conformance/backward_problem.h"
#include "tests/conformance/instance.h"

namespace flashplus::conformance {

/// What a run left in the memory of the gradients.
struct BackwardOutputs {
  std::vector<std::byte> dq, dk, dv, delta;
  int64_t tiles = 0;
  std::vector<std::vector<std::byte>> score; ///< Of the score's own inputs.

  bool operator==(const BackwardOutputs &) const = default;
  /// Whether what is deterministic on this device is the same: on a GPU all but `score`, and but dq where
  /// the plan adds it up in any order.
  bool same(const BackwardOutputs &other, bool adds_dq = false) const;
};

class BackwardInstance : public Instance {
public:
  explicit BackwardInstance(const BackwardCase &c);

  const BackwardCase &backward() const { return backward_; }
  const flashplus_backward_args &gradientArgs() const { return args_; }
  const reference::BackwardProblem &gradientReference() const { return gradient_reference_; }

  /// Poison into the gradients and delta, a known number into the tile counter.
  void resetGradients();
  BackwardOutputs readGradients() const;
  bool gradientInputsUnchanged() const;
  /// Whether everything but the valid rows' elements is still poison; names the first place that is not.
  bool gradientsUntouched(const BackwardOutputs &outputs, std::string &where) const;
  /// In the layout of reference::Gradients; rows outside the sequences are 0.
  reference::Gradients unpackGradients(const BackwardOutputs &outputs) const;
  /// delta as (rows, heads_q), and what it should be, with what that may be off by.
  struct Delta {
    std::vector<double> actual, expected, allowed;
  };
  Delta unpackDelta(const BackwardOutputs &outputs) const;

private:
  void makeStatistics();
  void runOwnForward();
  void makeGradients();
  void makeReference();
  void makeScoreGradients();
  DLTensor *scoreGradient(std::vector<int64_t> shape);
  void spoilLse();

  const BackwardCase backward_;
  flashplus_backward_args args_ = FLASHPLUS_BACKWARD_ARGS_INIT;
  reference::BackwardProblem gradient_reference_;
  View dout_, dlse_, dq_, dk_, dv_, delta_;
  std::deque<View> score_views_;         ///< In the order of score_names_.
  std::vector<std::string> score_names_; ///< "softcap", "slopes", or the caller's.
  std::vector<flashplus_score_gradient> score_gradients_;
  std::vector<double> o_values_, lse_values_, dlse_values_; ///< As the reference wants them.
};

} // namespace flashplus::conformance
