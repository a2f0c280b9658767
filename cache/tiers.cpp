// SPDX-License-Identifier: BSD-3-Clause
#include "cache/tiers.h"

#include <algorithm>

namespace flashplus {

bool Tiers::isRefused(size_t tier, const std::string &name) {
  const std::lock_guard lock(refused_mutex_);
  return refused_.contains({tier, name});
}

ReadResult Tiers::read(const KernelKey &key) {
  ReadResult worse, wrong;
  const std::string name = before_.empty() ? "" : key.hex();
  for (size_t i = 0; i < before_.size(); ++i) {
    if (isRefused(i, name))
      continue;
    ReadResult found = before_[i]->read(key);
    found.tier = int(i);
    if (found.isHit() && found.artifact->kind != CodeKind::Ptx)
      return found;
    if (found.isHit() && !worse.isHit())
      worse = std::move(found);
    else if (found.miss == Miss::Damaged || found.miss == Miss::Unreadable || found.miss == Miss::Untrusted)
      wrong = std::move(found);
  }
  ReadResult own = own_.read(key);
  if (worse.isHit() && (!own.isHit() || own.artifact->kind == CodeKind::Ptx))
    return worse;
  const bool is_plain_miss = own.miss == Miss::Absent || own.miss == Miss::MemoryOnly;
  if (is_plain_miss && wrong.miss == Miss::None && !before_.empty())
    explainMiss(key.target);
  return is_plain_miss && wrong.miss != Miss::None ? wrong : own;
}

std::optional<Refusal> Tiers::refusal(const KernelKey &key) const {
  std::optional<Refusal> known = own_.refusal(key);
  for (size_t i = 0; i < before_.size() && !known; ++i)
    known = before_[i]->refusal(key);
  return known;
}

/// Says once that there are packs, but for other GPUs, or other CPUs.
void Tiers::explainMiss(const std::string &target) {
  const auto isGpuTarget = [](const std::string &text) { return text.starts_with("sm_"); };
  std::string packs;
  for (const KernelSource *source : before_) {
    const std::optional<std::vector<std::string>> targets = source->onlyTargets();
    if (!targets || std::ranges::find(*targets, target) != targets->end())
      return; // a folder may get it yet; a pack that knows the target lacks one kernel, not all
    std::string alike;
    for (const std::string &other : *targets)
      if (isGpuTarget(other) == isGpuTarget(target))
        alike += (alike.empty() ? "" : ", ") + other;
    if (alike.empty())
      continue;
    packs += (packs.empty() ? "'" : ", '") + source->dir() + "' has kernels for " + alike;
  }
  if (packs.empty() || !log_)
    return;
  {
    const std::lock_guard lock(explained_mutex_);
    if (!explained_.insert(target).second)
      return;
  }
  log_("no pack of the cache path has kernels for " + target + ": " + packs);
}

void Tiers::discard(const KernelKey &key, int tier, const std::string &mark, const std::string &why) {
  if (tier < 0)
    return own_.discard(key, why, mark);
  before_[size_t(tier)]->discard(key, why); // says so, and keeps it
  const std::lock_guard lock(refused_mutex_);
  refused_.emplace(size_t(tier), key.hex());
}

} // namespace flashplus
