// SPDX-License-Identifier: BSD-3-Clause
// Where gradients of a score's own inputs go: dalibi_slopes, dsoftcap and score_gradients of a backward.
#pragma once

#include "runtime/arguments/backward_args.h"
#include "runtime/arguments/operands.h"

namespace flashplus {

/// Sets spec.score_grads, the params and `out.score_gradients`. After bindScore; `operands` are the call's,
/// checked.
Status bindScoreGradients(TensorReader &reader, const flashplus_backward_args &args,
                          std::span<const OperandArg> operands, BackwardProblem &out);

} // namespace flashplus
