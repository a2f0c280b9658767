// SPDX-License-Identifier: BSD-3-Clause
// Adds what a context does to the cache's counts (cache/usage_counts.h), so that `flashplus cache stats`
// knows of all processes. Nothing of it is on the way of a launch: counters are added up anyway, and written
// after work on the disk, once a second at most, when the context is marked ready or goes, and when the
// process exits.
#pragma once

#include "cache/fork.h"
#include "cache/store.h"
#include "runtime/kernels/kernel_table.h"

#include <atomic>
#include <chrono>
#include <mutex>

namespace flashplus {

/// Thread-safe. Store and counters must outlive it.
class UsageReport final : private ForkGuarded {
public:
  UsageReport(KernelStore &store, const KernelCounters &counters);
  ~UsageReport();

  /// After a kernel was read or made: writes if it was not done for a second.
  void workDone();
  /// Writes what was not written yet. `patient`: also if another process is at it for long.
  void write(bool patient);

private:
  using Clock = std::chrono::steady_clock;

  UsageCounts counted() const;
  bool hold() override { return true; }
  void letGo() override {}
  void inChild(bool held) override; ///< What the parent has counted is the parent's to write.

  KernelStore &store_;
  const KernelCounters &counters_;
  std::atomic<Clock::rep> last_;
  ForkSafe<std::mutex> mutex_;
  UsageCounts written_; ///< Under mutex_.
};

} // namespace flashplus
