// SPDX-License-Identifier: BSD-3-Clause
// Plans a merge of two results: one step, without a workspace.
#pragma once

#include "templates/planner.h"

#include <vector>

namespace flashplus {

class MergePlanner final : public Planner {
public:
  MergePlanner(const KernelSpec &spec, const DeviceProfile &device);
  Result<Plan> plan(const Bounds &bounds, const PlanOptions &options) const override;

private:
  KernelSpec spec_;
  DeviceProfile device_;
  std::vector<Candidate> candidates_;
};

} // namespace flashplus
