// SPDX-License-Identifier: BSD-3-Clause
// A count that every launch adds to. One number would be a locked instruction a launch, and its line would go
// from processor to processor with each.
#pragma once

#include "runtime/kernels/calls_in_flight.h"

#include <atomic>
#include <cstdint>

namespace flashplus {

/// Thread-safe. Has a number for each thread that launches, and one that those share that come when all are
/// taken.
class LaunchCount {
public:
  /// By a call in flight, of the thread that is in it.
  void add(int64_t n, const CallInFlight &here) {
    std::atomic<int64_t> &own = lines_[here.number()].count;
    if (here.number() == CallInFlight::kSharedNumber) [[unlikely]]
      own.fetch_add(n, std::memory_order_relaxed);
    else // nobody else writes there
      own.store(own.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  /// By anyone.
  LaunchCount &operator+=(int64_t n) {
    lines_[CallInFlight::kSharedNumber].count.fetch_add(n, std::memory_order_relaxed);
    return *this;
  }
  operator int64_t() const {
    int64_t sum = 0;
    for (const Line &line : lines_)
      sum += line.count.load(std::memory_order_relaxed);
    return sum;
  }

private:
  struct alignas(64) Line {
    std::atomic<int64_t> count{0};
  };
  Line lines_[CallInFlight::kSharedNumber + 1];
};

} // namespace flashplus
