// SPDX-License-Identifier: BSD-3-Clause
#include "templates/merge/planner.h"

#include <algorithm>

namespace flashplus {

MergePlanner::MergePlanner(const KernelSpec &spec, const DeviceProfile &device)
    : spec_(spec), device_(device), candidates_(feasibleCandidates(spec, device)) {}

Result<Plan> MergePlanner::plan(const Bounds &bounds, const PlanOptions &options) const {
  for (const Candidate &c : candidates_) {
    if (std::ranges::count(options.rejected, c.schedule))
      continue;
    auto step = makeStep(spec_, c.schedule, device_.target, {.rows = c.item.rows}, bounds);
    if (!step)
      return step.status();
    Plan plan;
    plan.steps.push_back(std::move(*step));
    plan.schedule_source = "default table";
    return plan;
  }
  FLASHPLUS_RETURN_IF_ERROR(checkDTypes(spec_, device_.target));
  return Status(StatusCode::Unsupported,
                "no schedule of '" + spec_.text() + "' fits " + device_.target.text());
}

} // namespace flashplus
