// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm90_flash_layout.h"

#include <span>

namespace flashplus {

Sm90FlashLayout Sm90FlashLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm90FlashLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.stages = schedule.get("stages");
  l.q_stages = schedule.get("q_stages");
  l.pingpong = schedule.get("pingpong") != 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.plain_score = spec.score.isIdentity();
  return l;
}

namespace {

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm90FlashLayout::of(spec, schedule);
  if (l.tile_m != 64 && l.tile_m != 128 && l.tile_m != 192)
    return badKnob(schedule, "tile_m", "64, 128 or 192");
  if (l.tile_n < 16 || l.tile_n > 256 || l.tile_n % 16)
    return badKnob(schedule, "tile_n", "a multiple of 16 up to 256");
  if (l.stages < 1 || l.stages > 8)
    return badKnob(schedule, "stages", "1 to 8");
  if (l.q_stages < 1 || l.q_stages > 2)
    return badKnob(schedule, "q_stages", "1 or 2");
  if (l.pingpong && l.mathWarpgroups() == 1)
    return badKnob(schedule, "pingpong", "0 with tile_m = 64");
  if (spec.alignment != 16)
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() +
                                               "' copies with TMA, which needs rows aligned to 16 bytes; the spec has "
                                               "alignment " + std::to_string(spec.alignment));
  if (l.accumulators() > l.mostAccumulators())
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "' needs " +
                                               std::to_string(l.accumulators()) +
                                               " accumulator registers a thread; at most " +
                                               std::to_string(l.mostAccumulators()) + " are allowed");
  if (l.bytes() > target.sharedMemoryPerBlock())
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "' needs " + std::to_string(l.bytes()) +
                                               " bytes of shared memory; " + target.text() + " has " +
                                               std::to_string(target.sharedMemoryPerBlock()));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = sizeof(ForwardParams);
  schema.blocks_per_sm = 1;
  schema.tensor_maps = {{TensorMap::Tensor::Q, l.tile_m, 64},
                        {TensorMap::Tensor::K, l.tile_n, 64},
                        {TensorMap::Tensor::V, l.tile_n, 64}};
  return schema;
}

// Measured on an H200 (docs/performance.md). Few keys: 128 divides them more often than a larger tile does, and what a tile
// computes past the sequence or above the diagonal is lost. Many: larger tiles read shared memory less often.
struct Row {
  int tile_m, tile_n, stages, q_stages, pingpong;
  int64_t most_keys;
};
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr Row kSmall64[] = {{192, 128, 3, 2, 1, kAny}};
constexpr Row kSmall64Bounded[] = {{128, 128, 3, 2, 0, 1536}, {192, 128, 3, 2, 1, kAny}};
constexpr Row k96[] = {{128, 128, 2, 2, 1, kAny}};
constexpr Row k128[] = {{128, 128, 2, 2, 0, 6144}, {128, 176, 2, 1, 1, kAny}};
constexpr Row k128Bounded[] = {{128, 128, 2, 2, 0, 12288}, {128, 176, 2, 1, 1, kAny}};
constexpr Row k192Narrow[] = {{128, 128, 2, 1, 1, kAny}}; // head_dim_v to 128
constexpr Row k192[] = {{128, 96, 2, 1, 1, kAny}};
constexpr Row k256[] = {{128, 80, 2, 1, 0, kAny}};

std::span<const Row> rowsOf(const KernelSpec &spec) {
  const int d = std::max(spec.head_dim_qk, spec.head_dim_v);
  const bool bounded = spec.bounded_left || spec.bounded_right;
  if (d <= 64)
    return bounded ? std::span<const Row>(kSmall64Bounded) : kSmall64;
  if (d <= 96)
    return k96;
  if (d <= 128)
    return bounded ? k128Bounded : k128;
  if (d <= 192)
    return spec.head_dim_v <= 128 ? std::span<const Row>(k192Narrow) : k192;
  return k256;
}

std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  std::vector<Candidate> result;
  for (const Row &row : rowsOf(spec)) {
    Schedule s{"sm90.flash",
               {{"tile_m", row.tile_m},
                {"tile_n", row.tile_n},
                {"stages", row.stages},
                {"q_stages", row.q_stages},
                {"pingpong", row.pingpong}}};
    if (Sm90FlashLayout::of(spec, s).bytes() <= shared_memory && launch(spec, s, target))
      result.push_back({std::move(s), row.most_keys});
  }
  return result;
}

} // namespace

const Algorithm kSm90Flash = {"sm90.flash", Operation::Forward, [](Isa isa) { return isa == Isa::Sm90a; }, candidates,
                              launch};

} // namespace flashplus
