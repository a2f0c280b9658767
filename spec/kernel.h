// SPDX-License-Identifier: BSD-3-Clause
// A kernel: *what* (KernelSpec), *how* (Schedule) and *where* (Target) together, and its name.
#pragma once

#include "spec/kernel_spec.h"
#include "spec/params.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include <string>

namespace flashplus {

/// What the compiler is asked for.
struct Kernel {
  KernelSpec spec;
  Schedule schedule;
  Target target;
};

/// Symbol of the kernel, readable in a profiler: "flashplus_forward_bf16_d128_right".
std::string kernelName(const KernelSpec &spec);

/// The groups of params that kernels of a spec have.
constexpr unsigned paramGroups(const SpecFields &spec, bool clamps_indices) {
  return (clamps_indices ? unsigned(kIndexParams) : 0u) | (spec.hasSinks() ? unsigned(kSinkParams) : 0u) |
         (spec.pagedKeys() ? unsigned(kPagedParams) : 0u) |
         (spec.dropout ? unsigned(kDropoutParams) : 0u) |
         (spec.score_grads ? unsigned(kScoreGradParams) : 0u);
}

/// What kernels of a spec read of their operation's params.
inline ParamLayout paramLayout(const KernelSpec &spec) {
  const OperationInfo &info = operationInfo(spec.op);
  return paramLayout(info.params, info.params_size,
                     paramGroups(spec, info.hasScore() && spec.score.clampsIndices()));
}

} // namespace flashplus
