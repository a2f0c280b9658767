// SPDX-License-Identifier: BSD-3-Clause
// What tuning has learnt, and how a tuning record says it (runtime/plans/tuning_record.h reads it).
#pragma once

#include "tools/flashplus/workbench.h"

#include <map>
#include <set>

namespace flashplus::tool {

/// A schedule's way through the tuning of one spec.
struct Trial {
  std::string schedule, failed;                          ///< Why it is out; "" while it is in.
  std::map<size_t, std::vector<double>> seconds, ratios; ///< By cell.
  std::set<size_t> fine;                                 ///< Cells at which it was among the last.

  /// Its time over the reference's, the median of what was measured; infinity if nothing was.
  double ratio(size_t cell) const;
};

/// Cells (numbers of problems) of one spec, and its trials. A backward's kernels with schedules to choose
/// have a group each, whose trials are whole backwards that differ in this one kernel.
struct TuneGroup {
  std::string spec; ///< Text, of final results where there are such.
  std::vector<size_t> cells;
  std::vector<Trial> trials;

  /// What `chosen` has for the kernel of this spec.
  std::string today(const Prepared &chosen) const;
};

/// The record's row of one cell of `group`, whose schedule is now that of `chosen`.
Json cellJson(const TuneGroup &group, size_t cell, const Prepared &chosen);

} // namespace flashplus::tool
