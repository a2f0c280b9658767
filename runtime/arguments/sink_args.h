// SPDX-License-Identifier: BSD-3-Clause
// Attention sinks: which there are, and whether the LSE includes them.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/operands.h"
#include "spec/params.h"

namespace flashplus {

struct SinkArgs {
  const DLTensor *sinks;
  int32_t lse_without_sinks; ///< 0 or 1

  bool any() const { return sinks || lse_without_sinks; }
};
inline SinkArgs sinkArgs(const flashplus_forward_args &a) { return {a.sinks, a.lse_without_sinks}; }

/// Of arguments that say something: sets the sinks of `spec`, and the params of the kernels that have them.
Status checkSinks(TensorReader &reader, const SinkArgs &args, const TensorSizes &sizes, SpecFields &spec,
                  ForwardParams &p);

} // namespace flashplus
