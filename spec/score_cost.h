// SPDX-License-Identifier: BSD-3-Clause
// How much code a score is: a bound for what reaches the compiler. A tile has each operation tens of times,
// all unrolled, and an assembler's time and memory grow faster than the code that it is given.
#pragma once

#include "spec/score.h"

namespace flashplus {

/// Most that an expression, or one with its derivatives, may cost.
inline constexpr int kMaxScoreCost = 1024;

/// About the instructions of one score: 1 an operation, more for functions and elements of tensors.
int scoreCost(std::span<const ScoreNode> nodes);

/// InvalidArgument if it is too much; `what` is "score", "the derivative of score".
Status checkScoreCost(std::span<const ScoreNode> nodes, const std::string &what);

} // namespace flashplus
