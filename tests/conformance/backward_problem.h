// SPDX-License-Identifier: BSD-3-Clause
// A backward as a test writes it down: a forward's problem, and what only a backward has.
#pragma once

#include "tests/conformance/problem.h"

#include <algorithm>

namespace flashplus::conformance {

struct BackwardCase {
  Case forward; ///< Its `fill` also gives dout ('g') and dlse ('e', column 0). want_lse and num_splits are
                ///< unused.

  bool dlse = false, delta = false; ///< Whether they are given.
  /// o and lse are written by the device's own forward, instead of being those of fp64, rounded.
  bool after_forward = false;
  /// The lse of every fifth row is no number though the row sees keys; it then has no part in the gradients.
  bool infinite_lse = false;
  Layout dout_layout = {}, dq_layout = {}, dk_layout = {}, dv_layout = {};
  bool score_grads = false; ///< Gradients of all the score's tensors and scalars, slopes and softcap.
  bool any_order = false;   ///< Of the sums of dq.
  bool packed_dqkv = false; ///< dq, dk and dv are slices of one (.., rows, hq + 2 hk, d) of dq_layout.

  std::vector<Case::Field> fields() const;
  std::string text() const;
};

/// First and last key that row i of entry b sees; none if the last is before the first.
inline std::pair<int64_t, int64_t> visibleKeys(const Case &c, int64_t b, int64_t i) {
  const int64_t p = i + c.lengthK(b) - c.lengthQ(b);
  return {c.window_left < 0 ? 0 : std::max<int64_t>(0, p - c.window_left),
          c.windowRight() < 0 ? c.lengthK(b) - 1 : std::min<int64_t>(c.lengthK(b) - 1, p + c.windowRight())};
}

} // namespace flashplus::conformance
