// SPDX-License-Identifier: BSD-3-Clause
// What a kernel takes of a machine, as result files and reports have it.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// {"spec", "schedule", "kind", "threads", "registers", "spill_bytes", "stack_bytes", "shared_memory",
/// "code_bytes"} of each step of `plan` (flashplus_plan_describe) that is not in `kernels` yet; what is not
/// known is null. A kernel that cannot be had is left out: the plan's run has said why.
void addKernelFacts(flashplus_context *context, const Json &plan, Json &kernels);

/// The same of one kernel.
void addKernelFacts(flashplus_context *context, const std::string &spec, const std::string &schedule,
                    const std::string &target, Json &kernels);

} // namespace flashplus::tool
