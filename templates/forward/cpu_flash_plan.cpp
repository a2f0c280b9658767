// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_flash_layout.h"

namespace flashplus {

CpuFlashLayout CpuFlashLayout::of(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  CpuFlashLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.mr = schedule.get("mr");
  l.nr = schedule.get("nr");
  l.lanes = isaInfo(target.isa).vector_lanes;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, l.lanes);
  l.dv_pad = roundUp(l.dv, l.lanes);
  return l;
}

namespace {

std::vector<Candidate> candidates(const KernelSpec &, const Target &target, int) {
  // Register block: mr * nr accumulators + nr vectors of the right matrix + one broadcast fill the register file.
  const bool wide = isaInfo(target.isa).vector_registers == 32;
  const int mr = wide ? 12 : 6, nr = 2;
  // Packing a tile of K and V is shared by tile_m rows, hence the large tile; short queries waste less of a small one.
  return {{{"cpu.flash", {{"tile_m", 96}, {"tile_n", 64}, {"mr", mr}, {"nr", nr}}}},
          {{"cpu.flash", {{"tile_m", 12}, {"tile_n", 64}, {"mr", mr}, {"nr", nr}}}},
          {{"cpu.flash", {{"tile_m", 1}, {"tile_n", 64}, {"mr", 1}, {"nr", nr}}}}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int lanes = isaInfo(target.isa).vector_lanes;
  const auto l = CpuFlashLayout::of(spec, schedule, target);
  if (l.mr < 1 || l.mr > 16)
    return badKnob(schedule, "mr", "1 to 16");
  if (l.nr < 1 || l.nr > 4)
    return badKnob(schedule, "nr", "1 to 4");
  if (l.tile_m < 1 || l.tile_m > 512 || l.tile_m % l.mr)
    return badKnob(schedule, "tile_m", "a multiple of mr up to 512");
  if (l.tile_n < 1 || l.tile_n > 512 || l.tile_n % (l.nr * lanes))
    return badKnob(schedule, "tile_n", "a multiple of nr times the vector lanes, up to 512");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.scratch = int64_t(l.floats()) * 4;
  schema.params_size = sizeof(ForwardParams);
  return schema;
}

constexpr int kTileM[] = {1, 6, 12, 24, 48, 96, 192}, kTileN[] = {32, 64, 96, 128, 256}, kMr[] = {1, 4, 6, 8, 12, 14},
              kNr[] = {1, 2, 3};
constexpr Knob kKnobs[] = {{"tile_m", 96, kTileM}, {"tile_n", 64, kTileN}, {"mr", 6, kMr}, {"nr", 2, kNr}};

/// Those whose register block leaves no room for its operands spill in the inner loop; those of one row serve one row.
bool worthTrying(const KernelSpec &, const Schedule &schedule, const Target &target) {
  const int mr = schedule.get("mr"), nr = schedule.get("nr");
  return mr * nr + nr + 1 <= isaInfo(target.isa).vector_registers && (mr == 1) == (schedule.get("tile_m") == 1);
}

} // namespace

const Algorithm kCpuFlash = {"cpu.flash", Operation::Forward, [](Isa isa) { return !isGpu(isa); },
                             candidates,  launch,             kKnobs,
                             worthTrying};

} // namespace flashplus
