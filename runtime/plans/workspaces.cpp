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

Result<Workspaces::Lease> Workspaces::borrow(Device &device, size_t bytes, size_t zeroed, void *stream) {
  Lease lease;
  if (bytes > kMostBytes)
    return lease;
  const std::optional<StreamKey> key = device.streamKey(stream);
  if (!key)
    return lease;
  Entry *entry = nullptr;
  {
    std::lock_guard lock(mutex_);
    const Key name{&device, key->stream, key->capture, zeroed};
    const auto found = entries_.find(name);
    if (found == entries_.end() || found->second->bytes < bytes) {
      auto larger = std::make_unique<Entry>();
      larger->bytes = std::bit_ceil(std::max(bytes, kMostBytes / 8));
      size_t &kept = bytes_[&device];
      if (kept + larger->bytes > kMostInAll)
        return lease;
      auto memory = device.allocateZeroed(larger->bytes);
      if (!memory)
        return memory.status();
      larger->memory = *memory;
      kept += larger->bytes;
      std::unique_ptr<Entry> &newest = entries_[name];
      larger->before = std::move(newest);
      newest = std::move(larger);
      entry = newest.get();
    } else {
      entry = found->second.get();
    }
  }
  // An entry lives as long as this object, also one that a larger one has taken the place of meanwhile.
  lease.lock_ = std::unique_lock(entry->mutex);
  lease.memory_ = entry->memory;
  return lease;
}

} // namespace flashplus
