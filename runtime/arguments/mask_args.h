// SPDX-License-Identifier: BSD-3-Clause
// Which keys a row sees: causal and window sides, for the arguments of every operation that has these fields.
#pragma once

#include "runtime/arguments/problem.h"

namespace flashplus {

/// The fields of a caller's struct that say so; sides are -1 (unbounded) or more.
struct MaskArgs {
  int32_t causal, window_left, window_right;
};
template <class Args> MaskArgs maskArgs(const Args &a) { return {a.causal, a.window_left, a.window_right}; }

/// Sets the bounded sides of the problem's spec and the window of its bounds.
Status checkMask(const MaskArgs &args, AttentionProblem &problem);

/// Params of the names that spec/params.h gives them.
template <class Params> void setMask(const Bounds &bounds, Params &p) {
  p.window_left = bounds.window_left;
  p.window_right = bounds.window_right;
}

} // namespace flashplus
