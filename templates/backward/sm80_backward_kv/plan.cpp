// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "spec/score_gradient.h"
#include "templates/backward/sm80_backward_kv/layout.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

#include <algorithm>

namespace flashplus {

Sm80BackwardKVLayout Sm80BackwardKVLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm80BackwardKVLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.warps = schedule.get("warps");
  l.parts = schedule.get("parts");
  l.stages = schedule.get("stages");
  l.n_frags = l.warps > 0 && l.parts > 0 ? l.tile_n * l.parts / (16 * l.warps) : 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, 16 * std::max(1, l.parts));
  l.dv_pad = roundUp(l.dv, 16 * std::max(1, l.parts));
  l.by_element = spec.alignment != 16;
  l.window_dropout = spec.dropout && spec.bounded_left;
  return l;
}

int Sm80BackwardKVLayout::registers(const ScoreExpr &score) const {
  int all = accumulators() + (by_element ? kElementRegisters : 0) +
            (window_dropout ? n_frags * partM() * 3 / 8 : 0);
  if (score.isIdentity())
    return all;
  if (score.clampsIndices()) // a tensor has one element a head where no index is clamped
    all += kElementRegisters;
  const ScoreGradient gradient = differentiate(score);
  return gradient.isConstant(gradient.ds, 1) ? all : all + n_frags * partM() / 2;
}

namespace {

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm80BackwardKVLayout::of(spec, schedule);
  if (l.parts < 1 || l.parts > 2)
    return badKnob(schedule, "parts", "1 or 2");
  if (l.warps < 1 || l.warps > 8 || l.warps % l.parts)
    return badKnob(schedule, "warps", "a multiple of parts up to 8");
  if (l.n_frags < 1 || l.n_frags > 2 || l.tile_n * l.parts != l.n_frags * 16 * l.warps)
    return badKnob(schedule, "tile_n", "16 or 32 times warps / parts");
  if (l.tile_m < 16 * l.parts || l.tile_m > 128 || l.tile_m % (16 * l.parts))
    return badKnob(schedule, "tile_m", "a multiple of 16 times parts up to 128");
  if (l.stages < 1 || l.stages > 2)
    return badKnob(schedule, "stages", "1 or 2");
  FLASHPLUS_RETURN_IF_ERROR(fitsRegisters(schedule, l.registers(spec.score), l.kMaxRegisters));
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {
      .rows = schedule.get("tile_n"), .keys = schedule.get("tile_n"), .packs_heads = true, .side = Side::Key};
}

constexpr TableRow kTable[] = {
#include "templates/backward/sm80_backward_kv/table.inc"
};

/// One: what fits.
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> table;
  auto result = table.of(kSm80BackwardKV, kTable).candidates(spec, target, shared_memory);
  if (result.size() > 1) // the next ones are for less shared memory or scores that take more registers
    result.resize(1);
  return result;
}

constexpr int kTileM[] = {16, 32, 64, 128}, kTileN[] = {32, 48, 64, 96, 128}, kWarps[] = {4, 6, 8},
              kParts[] = {1, 2}, kStages[] = {1, 2};
constexpr Knob kKnobs[] = {{"tile_m", 64, kTileM},
                           {"tile_n", 64, kTileN},
                           {"warps", 4, kWarps},
                           {"parts", 1, kParts},
                           {"stages", 1, kStages}};

} // namespace

const Algorithm kSm80BackwardKV = {
    "sm80.backward_kv", Operation::BackwardKV, TargetKind::Gpu, kMmaSync, candidates, launch, traits, kKnobs};

} // namespace flashplus
