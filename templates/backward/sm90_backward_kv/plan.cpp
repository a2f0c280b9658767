// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "spec/score_gradient.h"
#include "templates/backward/sm90_backward_kv/layout.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

namespace flashplus {

Sm90BackwardKVLayout Sm90BackwardKVLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm90BackwardKVLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.stages = schedule.get("stages");
  l.kv_stages = schedule.get("kv_stages");
  l.pingpong = schedule.get("pingpong") != 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dropout = spec.dropout;
  l.adds_dq = spec.op == Operation::Backward;
  l.roles = l.adds_dq ? 1 : schedule.get("roles");
  l.ds_stages = l.adds_dq ? schedule.get("ds_stages") : 0;
  l.skew = l.adds_dq && schedule.get("skew") != 0;
  l.dq_first = l.skew && schedule.get("dq_first") != 0; // without skew dq is of the same step
  return l;
}

int Sm90BackwardKVLayout::registers(const ScoreExpr &score) const {
  int all = accumulators() + (dropout ? tile_m * 3 / 8 : 0);
  if (score.isIdentity())
    return all;
  all += tile_m / 4; // what a query's scores have in common
  const ScoreGradient gradient = differentiate(score);
  return gradient.isConstant(gradient.ds, 1) ? all : all + tile_m / 2;
}

namespace {

/// What sm90.backward alone asks for.
Status checkAdding(const Sm90BackwardKVLayout &l, const KernelSpec &spec, const Schedule &schedule) {
  auto refused = [&](const std::string &why) {
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "' " + why);
  };
  if (spec.results != Results::Partial)
    return refused("adds up a part of dq; the spec's results must be partial");
  if (l.dqk != 128 && (l.dqk > 64 || l.dqk % 16))
    return refused("has head dims of 16, 32, 48, 64 and 128; the spec's head_dim_qk is " +
                   std::to_string(l.dqk));
  if (l.tile_n != 128)
    return badKnob(schedule, "tile_n", "128");
  if (const int rows = l.dqk == 128 ? 64 : 128; l.tile_m != rows)
    return badKnob(schedule, "tile_m", std::to_string(rows) + " with this head_dim_qk");
  if (l.ds_stages < 1 + l.skew || l.ds_stages > 4)
    return badKnob(schedule, "ds_stages", l.skew ? "2 to 4 with skew = 1" : "1 to 4");
  return Status::ok();
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm90BackwardKVLayout::of(spec, schedule);
  if (l.adds_dq)
    FLASHPLUS_RETURN_IF_ERROR(checkAdding(l, spec, schedule));
  if (l.tile_n != 64 && l.tile_n != 128 && l.tile_n != 192)
    return badKnob(schedule, "tile_n", "64, 128 or 192");
  if (l.tile_m < 16 || l.tile_m > 128 || l.tile_m % 16)
    return badKnob(schedule, "tile_m", "a multiple of 16 up to 128");
  if (l.stages < 1 || l.stages > 4)
    return badKnob(schedule, "stages", "1 to 4");
  if (l.kv_stages < 1 || l.kv_stages > 2)
    return badKnob(schedule, "kv_stages", "1 or 2");
  if (l.roles != 1 && (l.roles != 2 || l.tile_n != 64))
    return badKnob(schedule, "roles", "1, or 2 with tile_n = 64");
  if (l.pingpong && l.shares().math == 1)
    return badKnob(schedule, "pingpong", "0 with one warpgroup");
  FLASHPLUS_RETURN_IF_ERROR(takesTma(spec, schedule));
  FLASHPLUS_RETURN_IF_ERROR(fitsRegisters(schedule, l.registers(spec.score), l.mostRegisters()));
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.shares().threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  schema.blocks_per_sm = 1;
  schema.tensor_maps = {{Operand::K, l.tile_n, 64},
                        {Operand::V, l.tile_n, 64},
                        {Operand::Q, l.tile_m, 64},
                        {Operand::DO, l.tile_m, 64}};
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {
      .rows = schedule.get("tile_n"), .keys = schedule.get("tile_n"), .packs_heads = true, .side = Side::Key};
}

ItemTraits addingTraits(const Schedule &schedule) {
  ItemTraits result = traits(schedule);
  result.adds_dq = true;
  return result;
}

constexpr TableRow kTable[] = {
#include "templates/backward/sm90_backward_kv/table.inc"
};

/// One: what fits.
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> table;
  auto result = table.of(kSm90BackwardKV, kTable).candidates(spec, target, shared_memory);
  if (result.size() > 1) // the next ones are for scores that take more registers
    result.resize(1);
  return result;
}

constexpr int kTileM[] = {32, 48, 64, 80, 96, 112, 128}, kTileN[] = {64, 128, 192}, kStages[] = {2, 3, 4},
              kKVStages[] = {1, 2}, kRoles[] = {1, 2}, kPingpong[] = {0, 1};
constexpr Knob kKnobs[] = {{"tile_m", 64, kTileM},      {"tile_n", 128, kTileN}, {"stages", 2, kStages},
                           {"kv_stages", 1, kKVStages}, {"roles", 1, kRoles},    {"pingpong", 1, kPingpong}};

/// Of sm90.backward.
constexpr TableRow kAddingTable[] = {
#include "templates/backward/sm90_backward_kv/adding_table.inc"
};

std::vector<Candidate> addingCandidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  // Slopes, dropout and windows take registers that there are not: the pair has smaller tiles.
  if (!spec.score.isIdentity() || spec.dropout || spec.bounded_left)
    return {};
  static constinit MadeOnce<const ScheduleTable> table;
  auto result = table.of(kSm90Backward, kAddingTable).candidates(spec, target, shared_memory);
  if (result.size() > 1)
    result.resize(1);
  return result;
}

constexpr int kAddingTileM[] = {64, 128}, kAddingTileN[] = {128}, kDSStages[] = {1, 2, 3}, kSkew[] = {0, 1},
              kDQFirst[] = {0, 1};
constexpr Knob kAddingKnobs[] = {{"tile_m", 64, kAddingTileM}, {"tile_n", 128, kAddingTileN},
                                 {"stages", 2, kStages},       {"kv_stages", 1, kKVStages},
                                 {"pingpong", 1, kPingpong},   {"ds_stages", 2, kDSStages},
                                 {"skew", 1, kSkew},           {"dq_first", 1, kDQFirst}};

} // namespace

const Algorithm kSm90Backward = {
    "sm90.backward", Operation::Backward, TargetKind::Gpu, kTma | kWgmma | kSetMaxRegisters, addingCandidates,
    launch,          addingTraits,        kAddingKnobs};

const Algorithm kSm90BackwardKV = {"sm90.backward_kv",
                                   Operation::BackwardKV,
                                   TargetKind::Gpu,
                                   kTma | kWgmma | kSetMaxRegisters,
                                   candidates,
                                   launch,
                                   traits,
                                   kKnobs};

} // namespace flashplus
