// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_flash/layout.h"

namespace flashplus {

CpuFlashLayout CpuFlashLayout::of(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  CpuFlashLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.mr = schedule.get("mr");
  l.nr = schedule.get("nr");
  l.pairs = schedule.get("pairs") != 0;
  l.dropout = spec.dropout;
  l.lanes = isaInfo(target.isa).vector_lanes;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.depth = l.pairs ? (l.dqk + 1) / 2 : l.dqk;
  l.depth_pad = roundUp(l.depth, l.lanes);
  l.dv_pad = roundUp(l.dv, l.lanes);
  l.v_rows = l.pairs ? l.tile_n / 2 : l.tile_n;
  return l;
}

namespace {

std::vector<Candidate> candidates(const KernelSpec &, const Target &target, int) {
  const IsaInfo &isa = isaInfo(target.isa);
  // Register block: mr * nr accumulators + nr vectors of the right matrix + one broadcast fill the register
  // file.
  const int mr = isa.vector_registers == 32 ? 12 : 6, nr = 2;
  // Products of bf16 pairs (vdpbf16ps) are for tuning to find: on a Xeon with AVX-512, fp16, which is widened
  // to fp32, was 1.5 times as fast as they were.
  const int pairs = 0;
  // The scores of a block and its share of K's and V's tiles fit the first two cache levels.
  const int tile_n = 128;
  // Packing a tile of K and V is shared by tile_m rows, hence the large tile; short queries waste less of a
  // small one.
  auto schedule = [&](int tile_m, int rows) {
    return Candidate{
        {"cpu.flash", {{"tile_m", tile_m}, {"tile_n", tile_n}, {"mr", rows}, {"nr", nr}, {"pairs", pairs}}}};
  };
  return {schedule(96, mr), schedule(12, mr)}; // fewer rows are for cpu.stream
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
  if (spec.dropout && l.tile_n % (2 * lanes))
    return badKnob(schedule, "tile_n", "with dropout a multiple of twice the vector lanes");
  if (schedule.get("pairs") < 0 || schedule.get("pairs") > (spec.dtype == DType::BF16))
    return badKnob(schedule, "pairs", spec.dtype == DType::BF16 ? "0 or 1" : "0 for a dtype other than bf16");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.scratch = int64_t(l.dwords()) * 4;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"), .keys = schedule.get("tile_n"), .packs_heads = true};
}

constexpr int kTileM[] = {1, 6, 12, 24, 48, 96, 192}, kTileN[] = {32, 64, 96, 128, 256},
              kMr[] = {1, 4, 6, 8, 12, 14}, kNr[] = {1, 2, 3}, kPairs[] = {0, 1};
constexpr Knob kKnobs[] = {
    {"tile_m", 96, kTileM}, {"tile_n", 128, kTileN}, {"mr", 6, kMr}, {"nr", 2, kNr}, {"pairs", 0, kPairs}};

/// Those whose register block leaves no room for its operands spill in the inner loop; those of one row serve
/// one row; pairs want their instruction.
bool worthTrying(const KernelSpec &, const Schedule &schedule, const Target &target) {
  const int mr = schedule.get("mr"), nr = schedule.get("nr");
  const IsaInfo &isa = isaInfo(target.isa);
  return mr * nr + nr + 1 <= isa.vector_registers && (mr == 1) == (schedule.get("tile_m") == 1) &&
         (isa.has(kBf16Dot) || !schedule.get("pairs"));
}

} // namespace

const Algorithm kCpuFlash = {
    "cpu.flash", Operation::Forward, TargetKind::Cpu, /*needs=*/0, candidates, launch, traits,
    kKnobs,      worthTrying,        /*pages=*/true};

} // namespace flashplus
