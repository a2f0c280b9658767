// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/launch_record.h"

#include <cassert>

namespace flashplus {

LaunchRecord recordOf(const Plan &plan, std::span<const ResidentKernel *const> kernels) {
  assert(plan.steps.size() <= size_t(kMaxSteps) && kernels.size() == plan.steps.size());
  LaunchRecord record;
  for (size_t i = 0; i < plan.steps.size(); ++i)
    record.steps[i] = {kernels[i], plan.steps[i].spec.op, !plan.steps[i].launch.tensor_maps.empty(),
                       plan.steps[i].item};
  record.num_steps = int64_t(plan.steps.size());
  record.workspace_bytes = plan.workspace_bytes;
  record.zeroed_bytes = plan.zeroed_bytes;
  for (int i = 0; i < kMaxParts; ++i)
    record.parts[i] = plan.parts[i].bytes ? plan.parts[i].offset : -1;
  return record;
}

} // namespace flashplus
