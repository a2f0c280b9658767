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

/// What kernels of a spec read of their operation's params.
inline ParamLayout paramLayout(const KernelSpec &spec) {
  const OperationInfo &info = operationInfo(spec.op);
  return paramLayout(info.params, info.params_size,
                     {info.hasScore() && spec.score.clampsIndices(), spec.pagedKeys()});
}

} // namespace flashplus
