// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/cpu_backward/layout.h"

namespace flashplus {

CpuBackwardLayout CpuBackwardLayout::of(const KernelSpec &spec, const Schedule &schedule,
                                        const Target &target) {
  CpuBackwardLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.mr = schedule.get("mr");
  l.nr = schedule.get("nr");
  l.lanes = isaInfo(target.isa).vector_lanes;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, l.lanes);
  l.dv_pad = roundUp(l.dv, l.lanes);
  l.dropout = spec.dropout;
  return l;
}

namespace {

std::vector<Candidate> candidates(const KernelSpec &, const Target &target, int) {
  // Register block: mr * nr accumulators + nr vectors of the right matrix + one broadcast fill the register
  // file.
  const int mr = isaInfo(target.isa).vector_registers == 32 ? 12 : 6;
  return {{{"cpu.backward", {{"tile_m", 48}, {"tile_n", 96}, {"mr", mr}, {"nr", 2}}}}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = CpuBackwardLayout::of(spec, schedule, target);
  if (l.mr < 1 || l.mr > 16)
    return badKnob(schedule, "mr", "1 to 16");
  if (l.nr < 1 || l.nr > 4)
    return badKnob(schedule, "nr", "1 to 4");
  if (l.tile_m < 1 || l.tile_m > 512 || l.tile_m % l.mr)
    return badKnob(schedule, "tile_m", "a multiple of mr up to 512");
  if (l.tile_n < 1 || l.tile_n > 512 || l.tile_n % l.panel() || l.tile_n % l.mr)
    return badKnob(schedule, "tile_n", "a multiple of mr and of nr times the vector lanes, up to 512");
  if (l.dropout && l.tile_n % (2 * l.lanes))
    return badKnob(schedule, "tile_n", "with dropout a multiple of twice the vector lanes");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.scratch = int64_t(l.elements()) * 4;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = kWholeSequence, .keys = schedule.get("tile_n"), .packs_heads = true, .side = Side::Key};
}

constexpr int kTileM[] = {24, 48, 96}, kTileN[] = {48, 96, 192}, kMr[] = {4, 6, 8, 12}, kNr[] = {1, 2, 3};
constexpr Knob kKnobs[] = {{"tile_m", 48, kTileM}, {"tile_n", 96, kTileN}, {"mr", 6, kMr}, {"nr", 2, kNr}};

/// Those whose register block leaves no room for its operands spill in the inner loop.
bool worthTrying(const KernelSpec &, const Schedule &schedule, const Target &target) {
  const int mr = schedule.get("mr"), nr = schedule.get("nr");
  return mr * nr + nr + 1 <= isaInfo(target.isa).vector_registers;
}

} // namespace

// The same tiles without their last three products (cpu_backward/emit.cpp).
const Algorithm kCpuBackwardScore = {"cpu.backward_score",
                                     Operation::BackwardScore,
                                     TargetKind::Cpu,
                                     /*needs=*/0,
                                     [](const KernelSpec &spec, const Target &target, int shared_memory) {
                                       auto result = candidates(spec, target, shared_memory);
                                       for (Candidate &c : result)
                                         c.schedule.algorithm = "cpu.backward_score";
                                       return result;
                                     },
                                     launch,
                                     traits,
                                     kKnobs,
                                     worthTrying};

const Algorithm kCpuBackward = {"cpu.backward", Operation::Backward, TargetKind::Cpu, /*needs=*/0, candidates,
                                launch,         traits,              kKnobs,          worthTrying};

} // namespace flashplus
