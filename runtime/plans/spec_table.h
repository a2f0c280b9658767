// SPDX-License-Identifier: BSD-3-Clause
// What the plans of one spec on one device have in common, worked out with the first of them: a length that
// was never seen before then costs neither lists nor text. Like kernels, entries stay as long as the context.
#pragma once

#include "cache/fork.h"
#include "runtime/plans/plan_memo.h"
#include "templates/planner.h"

#include <array>
#include <map>
#include <memory>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

namespace flashplus {

/// Thread-safe.
class PlannedSpec {
public:
  PlannedSpec(KernelSpec spec, const DeviceProfile &device, std::string id, std::vector<TunedSchedule> tuned)
      : spec(std::move(spec)), id(std::move(id)), tuned(std::move(tuned)),
        planner(makePlanner(this->spec, device)) {}

  const KernelSpec spec;
  const std::string id; ///< Of Context::rejected.
  const std::vector<TunedSchedule> tuned;
  const std::unique_ptr<const Planner> planner; ///< Problems are of operations that have one.

  /// The kernel of a step that some plan of this spec had before; null if none had.
  std::shared_ptr<ResidentKernel> kernel(const PlanStep &step) const;
  void remember(const PlanStep &step, std::shared_ptr<ResidentKernel> kernel);
  /// Forgets those of `kernels`, which is sorted.
  void forget(std::span<const std::shared_ptr<ResidentKernel>> kernels);

private:
  struct Known {
    SpecFields spec;
    Schedule schedule;
    std::shared_ptr<ResidentKernel> kernel;
  };
  mutable ForkSafe<std::shared_mutex> mutex_;
  std::vector<Known> known_; ///< As many as a spec has schedules.
};

/// Thread-safe.
class SpecTable {
public:
  /// Null if there is none.
  PlannedSpec *find(const PlanKey &key) const;
  /// The entry of the key: `made`, unless another thread was first.
  PlannedSpec &add(const PlanKey &key, std::unique_ptr<PlannedSpec> made);
  void forget(std::span<const std::shared_ptr<ResidentKernel>> kernels);

private:
  mutable ForkSafe<std::shared_mutex> mutex_;
  std::map<std::array<uint64_t, PlanKey::kSpecWords>, std::unique_ptr<PlannedSpec>> specs_;
};

} // namespace flashplus
