// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "templates/backward/sm80_backward_q/layout.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

#include <algorithm>
#include <optional>

namespace flashplus {

Sm80BackwardQLayout Sm80BackwardQLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm80BackwardQLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.warps = schedule.get("warps");
  l.stages = schedule.get("stages");
  l.m_frags = l.warps > 0 ? l.tile_m / (16 * l.warps) : 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, 16);
  l.dv_pad = roundUp(l.dv, 16);
  return l;
}

namespace {

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm80BackwardQLayout::of(spec, schedule);
  if (l.warps < 1 || l.warps > 8)
    return badKnob(schedule, "warps", "1 to 8");
  if (l.m_frags < 1 || l.m_frags > 2 || l.tile_m != l.m_frags * 16 * l.warps)
    return badKnob(schedule, "tile_m", "16 or 32 times warps");
  if (l.tile_n < 16 || l.tile_n > 128 || l.tile_n % 16)
    return badKnob(schedule, "tile_n", "a multiple of 16 up to 128");
  if (l.stages < 1 || l.stages > 2)
    return badKnob(schedule, "stages", "1 or 2");
  FLASHPLUS_RETURN_IF_ERROR(fitsRegisters(schedule, l.accumulators(), l.kMaxRegisters));
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"), .keys = schedule.get("tile_n")};
}

constexpr TableRow kTable[] = {
#include "templates/backward/sm80_backward_q/table.inc"
};

/// Two stages where they leave room for two blocks of four warps on a multiprocessor, which the registers of
/// the table's schedule allow.
std::optional<Schedule> twoBlocks(const KernelSpec &spec, const Target &target, int shared_memory) {
  const int d = std::max(spec.head_dim_qk, spec.head_dim_v);
  Schedule s =
      completeSchedule({"sm80.backward_q", {{"tile_m", 64}, {"tile_n", 64}, {"warps", 4}, {"stages", 2}}});
  // A multiprocessor has 1 KB more than a block may take, and each block costs 1 KB.
  const int bytes = Sm80BackwardQLayout::of(spec, s).bytes();
  if (d > 64 && d <= 128 && launch(spec, s, target) && 2 * (bytes + 1024) <= shared_memory + 1024)
    return s;
  return std::nullopt;
}

/// One: what fits.
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> table;
  if (auto best = twoBlocks(spec, target, shared_memory))
    return {{std::move(*best)}};
  auto result = table.of(kSm80BackwardQ, kTable).candidates(spec, target, shared_memory);
  if (result.size() > 1) // the next ones are for chips with less shared memory
    result.resize(1);
  return result;
}

constexpr int kTileM[] = {64, 96, 128, 256}, kTileN[] = {32, 48, 64, 96, 128}, kWarps[] = {4, 6, 8},
              kStages[] = {1, 2};
constexpr Knob kKnobs[] = {
    {"tile_m", 64, kTileM}, {"tile_n", 64, kTileN}, {"warps", 4, kWarps}, {"stages", 1, kStages}};

} // namespace

const Algorithm kSm80BackwardQ = {
    "sm80.backward_q", Operation::BackwardQ, TargetKind::Gpu, kMmaSync, candidates, launch, traits, kKnobs};

// Its tiles suit sm80.backward_score (sm80_backward_score/emit.cpp), whose sums take fewer registers.
const Algorithm kSm80BackwardScore = {"sm80.backward_score",
                                      Operation::BackwardScore,
                                      TargetKind::Gpu,
                                      kMmaSync,
                                      [](const KernelSpec &spec, const Target &target, int shared_memory) {
                                        auto result = candidates(spec, target, shared_memory);
                                        for (Candidate &c : result)
                                          c.schedule.algorithm = "sm80.backward_score";
                                        return result;
                                      },
                                      launch,
                                      traits,
                                      kKnobs};

} // namespace flashplus
