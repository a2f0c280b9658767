// SPDX-License-Identifier: BSD-3-Clause
// Planner: what turns problems of one spec into plans. An operation that callers ask for (Forward, Backward,
// Merge) has one; the steps that plans are made of have none of their own.
#pragma once

#include "templates/forward/choose.h"
#include "templates/plan.h"

#include <memory>
#include <vector>

namespace flashplus {

/// Immutable: what the plans of a spec have in common is worked out once, so that a plan for another length
/// costs about a microsecond.
class Planner {
public:
  virtual ~Planner() = default;
  virtual Result<Plan> plan(const Bounds &bounds, const PlanOptions &options) const = 0;
};

/// The planner of `spec`, whose results are final; null for an operation that is only a step.
std::unique_ptr<Planner> makePlanner(const KernelSpec &spec, const DeviceProfile &device);

/// The specs of those steps of a plan of `spec` whose schedules tuning records may choose: what finds
/// PlanOptions::tuned. Of a step's spec: itself.
std::vector<KernelSpec> tunedSpecs(const KernelSpec &spec, const Target &target);

/// The kernels that any plan of `spec` on `device` can use: what warm-up compiles. Of a step's spec: its own.
std::vector<PlannedKernel> reachableKernels(const KernelSpec &spec, const DeviceProfile &device);

} // namespace flashplus
