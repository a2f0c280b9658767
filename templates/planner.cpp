// SPDX-License-Identifier: BSD-3-Clause
#include "templates/planner.h"

#include "templates/backward/planner.h"
#include "templates/forward/planner.h"
#include "templates/merge/planner.h"

namespace flashplus {
namespace {

/// What there is to know of an operation that callers ask for.
struct Planned {
  Operation op;
  std::unique_ptr<Planner> (*make)(const KernelSpec &spec, const DeviceProfile &device);
  std::vector<PlannedKernel> (*reachable)(const KernelSpec &spec, const DeviceProfile &device);
};

template <class Own> std::unique_ptr<Planner> make(const KernelSpec &spec, const DeviceProfile &device) {
  return std::make_unique<Own>(spec, device);
}

/// Of an operation whose plans have one step, of its own spec.
std::vector<PlannedKernel> ownKernels(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<PlannedKernel> result;
  for (Schedule &schedule : feasibleSchedules(spec, device))
    result.push_back({spec, std::move(schedule)});
  return result;
}

constexpr Planned kPlanned[] = {
    {Operation::Forward, make<ForwardPlanner>, reachableForwardKernels},
    {Operation::Backward, make<BackwardPlanner>, reachableBackwardKernels},
    {Operation::Merge, make<MergePlanner>, ownKernels},
};

const Planned *find(const KernelSpec &spec) {
  for (const Planned &p : kPlanned)
    if (p.op == spec.op && spec.results == Results::Final)
      return &p;
  return nullptr;
}

} // namespace

std::unique_ptr<Planner> makePlanner(const KernelSpec &spec, const DeviceProfile &device) {
  const Planned *planned = find(spec);
  return planned ? planned->make(spec, device) : nullptr;
}

std::vector<KernelSpec> tunedSpecs(const KernelSpec &spec, const Target &target) {
  if (find(spec) && spec.op == Operation::Backward)
    return tunedBackwardSteps(spec, target);
  return operationInfo(spec.op).hasScore() ? std::vector{spec} : std::vector<KernelSpec>();
}

std::vector<PlannedKernel> reachableKernels(const KernelSpec &spec, const DeviceProfile &device) {
  if (const Planned *planned = find(spec))
    return planned->reachable(spec, device);
  return ownKernels(spec, device);
}

} // namespace flashplus
