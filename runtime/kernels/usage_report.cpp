// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/usage_report.h"

#include "spec/made_once.h"

#include <set>

namespace flashplus {
namespace {

constexpr auto kPause = std::chrono::seconds(1);

/// Those that there are, for a process that exits without destroying its contexts. Never destroyed itself.
struct Reports {
  ForkSafe<std::mutex> mutex;
  std::set<UsageReport *> all;
};

Reports &reports() {
  static constinit MadeOnce<Reports> instance;
  return instance.of();
}

const struct AtExit {
  ~AtExit() {
    const std::lock_guard lock(reports().mutex);
    for (UsageReport *report : reports().all)
      report->write(/*patient=*/false);
  }
} kAtExit;

} // namespace

UsageReport::UsageReport(KernelStore &store, const KernelCounters &counters)
    : store_(store), counters_(counters), last_(Clock::now().time_since_epoch().count()) {
  const std::lock_guard lock(reports().mutex);
  reports().all.insert(this);
  enlist();
}

UsageReport::~UsageReport() {
  leave();
  {
    const std::lock_guard lock(reports().mutex);
    reports().all.erase(this);
  }
  write(/*patient=*/true);
}

UsageCounts UsageReport::counted() const {
  UsageCounts counts{.contexts = 1};
#define FLASHPLUS_COUNT(NAME) counts.NAME = counters_.NAME;
  FLASHPLUS_WORK_COUNTS(FLASHPLUS_COUNT)
#undef FLASHPLUS_COUNT
  return counts;
}

void UsageReport::inChild(bool) { written_ = counted(); }

void UsageReport::workDone() {
  const Clock::rep now = Clock::now().time_since_epoch().count();
  Clock::rep last = last_.load(std::memory_order_relaxed);
  if (now - last < Clock::duration(kPause).count() || !last_.compare_exchange_strong(last, now))
    return;
  write(/*patient=*/false);
}

void UsageReport::write(bool patient) {
  const std::lock_guard lock(mutex_);
  const UsageCounts now = counted(), more = now.minus(written_);
  UsageCounts work = more;
  work.contexts = work.memory_hits = 0;
  if (work.isNothing() && (written_.contexts == 0 || more.isNothing()))
    return; // it has not looked for anything on disk
  if (store_.addCounts(more, patient))
    written_ = now;
}

} // namespace flashplus
