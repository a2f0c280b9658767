// SPDX-License-Identifier: BSD-3-Clause
#include "templates/plan.h"

#include "templates/registry.h"

namespace flashplus {

Result<PlanStep> makeStep(const KernelSpec &spec, const Schedule &schedule, const Target &target,
                          const ItemShape &item, const Bounds &bounds) {
  auto schema = launchSchema(spec, schedule, target);
  if (!schema)
    return schema.status();
  const int64_t work_items = geometryOf(item, bounds).items;
  // Blocks that loop step past the end by at most one grid, which must not overflow an i32 either.
  constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max() - (1 << 20);
  if (work_items > kMaxGrid)
    return invalidArgument("the problem needs " + std::to_string(work_items) +
                           " work items (query tiles * heads * batch * splits); at most " +
                           std::to_string(kMaxGrid) + " are allowed");
  return PlanStep{spec, schedule, std::move(*schema), item, work_items};
}

DeviceProfile offlineProfile(const Target &target) {
  DeviceProfile profile;
  profile.target = target;
  profile.shared_memory_per_block = target.sharedMemoryPerBlock();
  profile.shared_memory_per_sm = target.sharedMemoryPerBlock() + 1024;
  return profile;
}

} // namespace flashplus
