// SPDX-License-Identifier: BSD-3-Clause
// An algorithm's default table: which schedule for which problem. The rows are generated from committed
// tuning records (`flashplus tune --table`, docs/tuning.md), so that every choice can be traced to its
// timings.
#pragma once

#include "templates/algorithm.h"

#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace flashplus {

/// Most keys of a row that is for any number.
inline constexpr int64_t kAnyKeys = std::numeric_limits<int64_t>::max();

/// Rows with equal head dims and mask make a class; classes go from small head dims to large ones, the rows
/// of one from few keys to many.
struct TableRow {
  int head_dim_qk, head_dim_v;  ///< Largest that the row is for.
  bool bounded;                 ///< For masks that are bounded on either side, or for those that are not.
  int64_t most_keys;            ///< As Candidate::most_keys.
  std::string_view schedule;    ///< Text; a knob that it does not name has its standard value.
};

/// The rows with their texts parsed. Immutable.
class ScheduleTable {
public:
  ScheduleTable(const Algorithm &algorithm, std::span<const TableRow> rows);

  /// The feasible rows of the first class that covers `spec` and has any within `shared_memory` bytes a
  /// block.
  std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) const;

private:
  struct Parsed {
    const TableRow *row;
    Schedule schedule;
  };
  const Algorithm &algorithm_;
  std::vector<Parsed> rows_;
};

} // namespace flashplus
