// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_stream/layout.h"

namespace flashplus {

CpuStreamLayout CpuStreamLayout::of(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  CpuStreamLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.heads = schedule.get("heads");
  l.lanes = isaInfo(target.isa).vector_lanes;
  l.unroll = l.tile_m > 0 ? l.lanes / l.tile_m : 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.depth_pad = roundUp(l.dqk, l.chunk());
  l.dv_pad = roundUp(l.dv, l.chunk());
  l.paged = spec.pagedKeys();
  return l;
}

namespace {

std::vector<Candidate> candidates(const KernelSpec &, const Target &, int) {
  // A tile of all heads, the next one and the heads' state fit the second-level cache. How many keys a tile
  // has matters little (docs/performance.md).
  auto schedule = [](int tile_m) {
    return Candidate{{"cpu.stream", {{"heads", 8}, {"tile_m", tile_m}, {"tile_n", 16}}}};
  };
  return {schedule(8), schedule(4), schedule(1)};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = CpuStreamLayout::of(spec, schedule, target);
  if (l.tile_m != 1 && l.tile_m != 2 && l.tile_m != 4 && l.tile_m != 8)
    return badKnob(schedule, "tile_m", "1, 2, 4 or 8");
  if (l.tile_n < 4 || l.tile_n > 512 || l.tile_n % l.unroll)
    return badKnob(schedule, "tile_n",
                   "at least 4, at most 512, and a multiple of the vector lanes divided by tile_m");
  if (l.heads < 1 || l.heads > 32)
    return badKnob(schedule, "heads", "1 to 32");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.scratch = int64_t(l.dwords()) * 4;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"),
          .keys = schedule.get("tile_n"),
          .key_heads = schedule.get("heads"),
          .share_keys = 256,
          .short_tiles = 2,
          .packs_heads = true};
}

constexpr int kHeads[] = {4, 8}, kTileM[] = {1, 2, 4, 8}, kTileN[] = {16, 32};
constexpr Knob kKnobs[] = {{"heads", 8, kHeads}, {"tile_m", 8, kTileM}, {"tile_n", 16, kTileN}};

} // namespace

const Algorithm kCpuStream = {
    "cpu.stream", Operation::Forward,       TargetKind::Cpu, /*needs=*/0, candidates, launch, traits,
    kKnobs,       /*worth_trying=*/nullptr, /*pages=*/true};

} // namespace flashplus
