// SPDX-License-Identifier: BSD-3-Clause
// --check: what a run wrote against the fp64 reference.
#pragma once

#include "reference/compare.h"
#include "reference/compare_backward.h"
#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

/// Judges compact outputs in host memory by the rule of reference/compare.h. `problem` must have been
/// accepted by the library. Takes time in proportion to the visible pairs.
Result<reference::Comparison> checkOutputs(const Problem &problem, const io::Tensor &output,
                                           const io::Tensor &lse, int threads);

/// The same of gradients, by the rule of reference/compare_backward.h. `problem` has dout. Takes some three
/// times as long.
Result<reference::BackwardComparison> checkGradients(const Problem &problem, const io::Tensor &dq,
                                                     const io::Tensor &dk, const io::Tensor &dv, int threads);

} // namespace flashplus::tool
