// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a tuning record: refused with a message, or cells whose schedules this build has.
#include "runtime/plans/tuning_record.h"
#include "templates/forward/planner.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

} // namespace

std::vector<std::string> seeds() {
  const std::string cell =
      R"({"spec":"forward dtype=bf16 dqk=64 dv=64 left=0 right=1 split=0 align=16 score={s}","queries":512,)"
      R"("keys":512,"best":"sm90.flash tile_m=128","timed":[{"schedule":"sm90.flash tile_m=192 stages=3 )"
      R"(pingpong=1","ratio":0.98},{"schedule":"sm80.flash x=1","failed":"no"}]})";
  auto record = [&](const std::string &target, const std::string &cells) {
    return R"({"format":"flashplus-tuning 1","date":"2026-11-24","device":{"model":"m","target":")" + target +
           R"("},"cells":[)" + cells + "]}";
  };
  return {record("sm_90a", cell), record("sm_80@sm_86", cell + "," + cell), record("x86-64-v3", "3,{},[]"),
          R"({"format":"flashplus-tuning 2"})", "[[[[[["};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto record = parseTuningRecord(std::string_view(reinterpret_cast<const char *>(data), size), "fuzz");
  if (!record) {
    require(record.status().message().starts_with("fuzz: "));
    return 0;
  }
  for (const std::string &why : record->ignored)
    require(!why.empty());
  for (const TuningCell &cell : record->cells) {
    require(launchSchema(cell.spec, cell.best, record->target).isOk());
    require(cell.queries > 0 && cell.keys > 0);
    for (const TuningCell::Timed &timed : cell.timed)
      require(timed.ratio > 0);
    // A plan takes it.
    const TunedSchedule best{cell.queries, cell.keys, cell.best, "fuzz"};
    PlanOptions options;
    options.tuned = {&best, 1};
    const Bounds bounds{1, 1000, 1000, 1000, 2, 2, -1, -1};
    if (auto plan = planForward(cell.spec, bounds, offlineProfile(record->target), options))
      require(!plan->schedule_source.empty());
  }
  return 0;
}
