// SPDX-License-Identifier: BSD-3-Clause
// --check: the outputs of a run against the fp64 reference.
#pragma once

#include "reference/compare.h"
#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

/// Judges compact outputs in host memory by the rule of reference/compare.h. `problem` must have been
/// accepted by the library. Takes time in proportion to the visible pairs.
Result<reference::Comparison> checkOutputs(const Problem &problem, const io::Tensor &output,
                                           const io::Tensor &lse, int threads);

} // namespace flashplus::tool
