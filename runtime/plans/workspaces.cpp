// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/workspaces.h"

#include <algorithm>
#include <bit>

namespace flashplus {

Workspaces::~Workspaces() {
  for (auto &[key, newest] : entries_)
    for (std::unique_ptr<Entry> entry = std::move(newest); entry; entry = std::move(entry->before))
      if (entry->memory)
        (void)std::get<Device *>(key)->release(entry->memory);
}

Workspaces::Entry *Workspaces::find(const Key &key, size_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  return found == entries_.end() || found->second->bytes < bytes ? nullptr : found->second.get();
}

/// Null beyond the limits.
Result<Workspaces::Entry *> Workspaces::make(const Key &key, size_t bytes) {
  Device &device = *std::get<Device *>(key);
  auto larger = std::make_unique<Entry>();
  larger->bytes = std::bit_ceil(std::max(bytes, kMostBytes / 8));
  {
    std::lock_guard lock(mutex_);
    size_t &kept = bytes_[&device];
    if (kept + larger->bytes > kMostInAll)
      return static_cast<Entry *>(nullptr);
    kept += larger->bytes;
  }
  auto memory = device.allocateZeroed(larger->bytes); // without the lock: a driver may take its time
  std::lock_guard lock(mutex_);
  if (!memory) {
    bytes_[&device] -= larger->bytes;
    return memory.status();
  }
  larger->memory = *memory;
  std::unique_ptr<Entry> &newest = entries_[key];
  larger->before = std::move(newest);
  newest = std::move(larger);
  return newest.get();
}

Result<Workspaces::Lease> Workspaces::borrow(Device &device, size_t bytes, size_t zeroed, void *stream) {
  Lease lease;
  if (bytes > kMostBytes)
    return lease;
  const std::optional<StreamKey> of = device.streamKey(stream);
  if (!of)
    return lease;
  const Key key{&device, of->stream, of->capture, zeroed};
  Entry *entry = find(key, bytes);
  if (!entry) {
    const Flights::Flight flight(making_, device.name() + ":" + std::to_string(of->stream) + ":" +
                                              std::to_string(of->capture) + ":" + std::to_string(zeroed));
    entry = find(key, bytes); // made while we waited?
    if (!entry) {
      auto made = make(key, bytes);
      if (!made)
        return made.status();
      if (!(entry = *made))
        return lease;
    }
  }
  // An entry lives as long as this object, also one that a larger one has taken the place of meanwhile.
  lease.lock_ = std::unique_lock(entry->mutex);
  lease.memory_ = entry->memory;
  return lease;
}

} // namespace flashplus
