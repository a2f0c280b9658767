// SPDX-License-Identifier: BSD-3-Clause
// Tables of schedules are text that is read when it is first asked for: a row that does not parse, or that no
// longer fits, would be passed over, and a worse schedule be taken.
#include "templates/registry.h"
#include "templates/schedule_table.h"

#include <doctest/doctest.h>

#include <span>

using namespace flashplus;

namespace {

constexpr TableRow kSm80Flash[] = {
#include "templates/forward/sm80_flash/table.inc"
};
constexpr TableRow kSm90Flash[] = {
#include "templates/forward/sm90_flash/table.inc"
};
constexpr TableRow kSm90FlashDropout[] = {
#include "templates/forward/sm90_flash/dropout_table.inc"
};
constexpr TableRow kSm80BackwardKV[] = {
#include "templates/backward/sm80_backward_kv/table.inc"
};
constexpr TableRow kSm80BackwardQ[] = {
#include "templates/backward/sm80_backward_q/table.inc"
};
constexpr TableRow kSm90BackwardKV[] = {
#include "templates/backward/sm90_backward_kv/table.inc"
};
constexpr TableRow kSm90BackwardQ[] = {
#include "templates/backward/sm90_backward_q/table.inc"
};
constexpr TableRow kSm90Backward[] = {
#include "templates/backward/sm90_backward_kv/adding_table.inc"
};

struct Table {
  const char *algorithm;
  std::span<const TableRow> rows;
  bool dropout = false;
};
const Table kTables[] = {{"sm80.flash", kSm80Flash},
                         {"sm90.flash", kSm90Flash},
                         {"sm90.flash", kSm90FlashDropout, true},
                         {"sm80.backward_kv", kSm80BackwardKV},
                         {"sm80.backward_q", kSm80BackwardQ},
                         {"sm90.backward_kv", kSm90BackwardKV},
                         {"sm90.backward_q", kSm90BackwardQ},
                         {"sm90.backward", kSm90Backward}};

} // namespace

TEST_CASE("every row of a table is a schedule that the specs it is for can run") {
  const Target target = *Target::parse("sm_90a");
  for (const Table &table : kTables)
    for (const TableRow &row : table.rows) {
      INFO(std::string(row.schedule));
      const auto schedule = Schedule::parse(row.schedule);
      REQUIRE_MESSAGE(schedule, schedule.status().message());
      CHECK(schedule->algorithm == table.algorithm);
      const Algorithm *algorithm = findAlgorithm(schedule->algorithm);
      REQUIRE(algorithm);
      KernelSpec spec;
      spec.op = algorithm->op;
      spec.dtype = DType::BF16;
      spec.head_dim_qk = row.head_dim_qk;
      spec.head_dim_v = row.head_dim_v;
      spec.alignment = 16;
      spec.bounded_right = row.bounded;
      spec.dropout = table.dropout;
      if (algorithm->op == Operation::Backward)
        spec.results = Results::Partial;
      const auto launch = launchSchema(spec, completeSchedule(*schedule), target);
      CHECK_MESSAGE(launch, launch.status().message());
    }
}
