// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/spec_table.h"

#include <algorithm>
#include <mutex>

namespace flashplus {

std::shared_ptr<ResidentKernel> PlannedSpec::kernel(const PlanStep &step) const {
  std::shared_lock lock(mutex_);
  for (const Known &k : known_)
    if (k.spec == step.spec && k.schedule == step.schedule)
      return k.kernel;
  return nullptr;
}

void PlannedSpec::remember(const PlanStep &step, std::shared_ptr<ResidentKernel> kernel) {
  if (this->kernel(step))
    return;
  std::unique_lock lock(mutex_); // two threads may both add it: the first is found
  known_.push_back({step.spec, step.schedule, std::move(kernel)});
}

void PlannedSpec::forget(std::span<const std::shared_ptr<ResidentKernel>> kernels) {
  std::unique_lock lock(mutex_);
  std::erase_if(known_, [&](const Known &k) { return std::ranges::binary_search(kernels, k.kernel); });
}

void SpecTable::forget(std::span<const std::shared_ptr<ResidentKernel>> kernels) {
  std::shared_lock lock(mutex_);
  for (const auto &[key, spec] : specs_)
    spec->forget(kernels);
}

PlannedSpec *SpecTable::find(const PlanKey &key) const {
  std::shared_lock lock(mutex_);
  const auto it = specs_.find(key.specWords());
  return it == specs_.end() ? nullptr : it->second.get();
}

PlannedSpec &SpecTable::add(const PlanKey &key, std::unique_ptr<PlannedSpec> made) {
  std::unique_lock lock(mutex_);
  return *specs_.emplace(key.specWords(), std::move(made)).first->second;
}

} // namespace flashplus
