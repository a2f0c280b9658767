// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "templates/backward/sm90_backward_q/layout.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

namespace flashplus {

Sm90BackwardQLayout Sm90BackwardQLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm90BackwardQLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.stages = schedule.get("stages");
  l.q_stages = schedule.get("q_stages");
  l.pingpong = schedule.get("pingpong") != 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dropout = spec.dropout;
  return l;
}

int Sm90BackwardQLayout::registers(const ScoreExpr &score) const {
  return accumulators() + (dropout ? tile_n / 8 : 0) + (score.isIdentity() ? 0 : 16);
}

namespace {

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm90BackwardQLayout::of(spec, schedule);
  if (l.tile_m != 64 && l.tile_m != 128 && l.tile_m != 192)
    return badKnob(schedule, "tile_m", "64, 128 or 192");
  if (l.tile_n < 16 || l.tile_n > 128 || l.tile_n % 16)
    return badKnob(schedule, "tile_n", "a multiple of 16 up to 128");
  if (l.stages < 1 || l.stages > 4)
    return badKnob(schedule, "stages", "1 to 4");
  if (l.q_stages < 1 || l.q_stages > 2)
    return badKnob(schedule, "q_stages", "1 or 2");
  if (l.pingpong && l.tile_m == 64)
    return badKnob(schedule, "pingpong", "0 with tile_m = 64");
  FLASHPLUS_RETURN_IF_ERROR(takesTma(spec, schedule));
  FLASHPLUS_RETURN_IF_ERROR(fitsRegisters(schedule, l.registers(spec.score), l.mostRegisters()));
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.shares().threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  schema.blocks_per_sm = 1;
  schema.tensor_maps = {{Operand::Q, l.tile_m, 64},
                        {Operand::DO, l.tile_m, 64},
                        {Operand::K, l.tile_n, 64},
                        {Operand::V, l.tile_n, 64}};
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"), .keys = schedule.get("tile_n")};
}

constexpr TableRow kTable[] = {
#include "templates/backward/sm90_backward_q/table.inc"
};

/// One: what fits.
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> table;
  auto result = table.of(kSm90BackwardQ, kTable).candidates(spec, target, shared_memory);
  if (result.size() > 1) // the next ones are for scores that take more registers
    result.resize(1);
  return result;
}

constexpr int kTileM[] = {64, 128, 192}, kTileN[] = {32, 48, 64, 80, 96, 112, 128}, kStages[] = {2, 3, 4},
              kQStages[] = {1, 2}, kPingpong[] = {0, 1};
constexpr Knob kKnobs[] = {{"tile_m", 128, kTileM},
                           {"tile_n", 64, kTileN},
                           {"stages", 2, kStages},
                           {"q_stages", 1, kQStages},
                           {"pingpong", 1, kPingpong}};

} // namespace

const Algorithm kSm90BackwardQ = {"sm90.backward_q",
                                  Operation::BackwardQ,
                                  TargetKind::Gpu,
                                  kTma | kWgmma | kSetMaxRegisters,
                                  candidates,
                                  launch,
                                  traits,
                                  kKnobs};

} // namespace flashplus
