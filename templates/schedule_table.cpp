// SPDX-License-Identifier: BSD-3-Clause
#include "templates/schedule_table.h"

#include "templates/registry.h"

namespace flashplus {

ScheduleTable::ScheduleTable(const Algorithm &algorithm, std::span<const TableRow> rows)
    : algorithm_(algorithm) {
  // A text that does not parse is left out here and fails schedule_table_test.cpp.
  for (const TableRow &row : rows)
    if (auto schedule = Schedule::parse(row.schedule))
      rows_.push_back({&row, completeSchedule(std::move(*schedule))});
}

std::vector<Candidate> ScheduleTable::candidates(const KernelSpec &spec, const Target &target,
                                                 int shared_memory) const {
  const bool bounded = spec.bounded_left || spec.bounded_right;
  auto covers = [&](const TableRow &row) {
    return spec.head_dim_qk <= row.head_dim_qk && spec.head_dim_v <= row.head_dim_v && bounded == row.bounded;
  };
  std::vector<Candidate> result;
  const TableRow *last = nullptr;
  for (const auto &[row, schedule] : rows_) {
    if (!covers(*row))
      continue;
    const bool another =
        last && (last->head_dim_qk != row->head_dim_qk || last->head_dim_v != row->head_dim_v);
    if (another && !result.empty())
      break;
    last = row;
    const auto launch = algorithm_.launch(spec, schedule, target);
    if (launch && launch->shared_memory <= shared_memory)
      result.push_back({schedule, row->most_keys});
  }
  return result;
}

} // namespace flashplus
