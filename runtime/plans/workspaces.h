// SPDX-License-Identifier: BSD-3-Clause
// What calls without a workspace of their own (flashplus_forward) work in: memory that a stream keeps for its
// next call. Allocating and clearing it anew would be three requests to the driver a call, and three nodes
// more in a graph that is captured, of about a microsecond each: as much as a decode step has in all.
#pragma once

#include "cache/fork.h"
#include "runtime/devices/device.h"
#include "runtime/kernels/flights.h"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

namespace flashplus {

/// Thread-safe. Memory is freed with the object, before its devices are.
class Workspaces {
public:
  /// At most so many bytes are kept for a stream; who needs more allocates in stream order. Graphs keep what
  /// was captured in them as long as the context lives.
  static constexpr size_t kMostBytes = size_t(8) << 20;
  /// At most so many bytes are kept for all streams and captures of a device.
  static constexpr size_t kMostInAll = size_t(256) << 20;

  ~Workspaces();

  /// A workspace and the right to enqueue work in it: nobody else's launches come in between.
  class Lease {
  public:
    Lease() = default;
    void *memory() const { return memory_; } ///< Null if none is kept for such a call.

  private:
    friend class Workspaces;
    std::unique_lock<std::mutex> lock_;
    void *memory_ = nullptr;
  };

  /// `bytes`, the first `zeroed` of which are zero and are left zero by what runs in them. Of a device that
  /// cannot tell its streams apart, and beyond the limits: no memory.
  Result<Lease> borrow(Device &device, size_t bytes, size_t zeroed, void *stream);

private:
  struct Entry {
    std::mutex mutex;
    std::unique_ptr<Entry> before; ///< Smaller: what was enqueued may still use it.
    void *memory = nullptr;
    size_t bytes = 0;
  };
  /// Runs whose counters have different sizes would write partial results over each other's counters.
  using Key = std::tuple<Device *, uint64_t, uint64_t, size_t>;

  Entry *find(const Key &key, size_t bytes);
  Result<Entry *> make(const Key &key, size_t bytes);

  Flights making_; ///< By key.
  ForkSafe<std::mutex> mutex_;
  std::map<Key, std::unique_ptr<Entry>> entries_;
  std::map<Device *, size_t> bytes_; ///< Kept on each.
};

} // namespace flashplus
