// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_stream_layout.h"

namespace flashplus {

CpuStreamLayout CpuStreamLayout::of(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  CpuStreamLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.lanes = isaInfo(target.isa).vector_lanes;
  l.unroll = l.tile_m > 0 ? l.lanes / l.tile_m : 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.depth_pad = roundUp(l.dqk, l.chunk());
  l.dv_pad = roundUp(l.dv, l.chunk());
  return l;
}

namespace {

std::vector<Candidate> candidates(const KernelSpec &, const Target &, int) {
  // A tile's K and V of 256 bytes a row fill half of a first-level cache.
  auto schedule = [](int tile_m) { return Candidate{{"cpu.stream", {{"tile_m", tile_m}, {"tile_n", 64}}}}; };
  return {schedule(8), schedule(4), schedule(1)};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = CpuStreamLayout::of(spec, schedule, target);
  if (l.tile_m != 1 && l.tile_m != 2 && l.tile_m != 4 && l.tile_m != 8)
    return badKnob(schedule, "tile_m", "1, 2, 4 or 8");
  if (l.tile_n < 16 || l.tile_n > 512 || l.tile_n % 16)
    return badKnob(schedule, "tile_n", "a multiple of 16 up to 512");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.scratch = int64_t(l.dwords()) * 4;
  schema.params_size = sizeof(ForwardParams);
  return schema;
}

constexpr int kTileM[] = {1, 2, 4, 8}, kTileN[] = {32, 64, 128};
constexpr Knob kKnobs[] = {{"tile_m", 8, kTileM}, {"tile_n", 64, kTileN}};

} // namespace

const Algorithm kCpuStream = {"cpu.stream", Operation::Forward, [](Isa isa) { return !isGpu(isa); },
                              candidates,   launch,             kKnobs,
                              nullptr,      /*packs_heads=*/true, /*share_keys=*/512};

} // namespace flashplus
