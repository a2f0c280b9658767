// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/decode/layout.h"
#include "templates/registry.h"

#include <algorithm>
#include <bit>
#include <optional>

namespace flashplus {

DecodeLayout DecodeLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  DecodeLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.warps = schedule.get("warps");
  l.stages = schedule.get("stages");
  l.least = schedule.get("least");
  l.tma = schedule.algorithm == kSm90Decode.name;
  l.l2 = l.tma ? 0 : schedule.get("l2");
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, 16);
  l.dv_pad = roundUp(l.dv, 16);
  l.element = dtypeBytes(spec.dtype);
  l.plain_score = spec.score.isIdentity();
  return l;
}

namespace {

constexpr int kMostStages = 8;

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = DecodeLayout::of(spec, schedule);
  if (spec.alignment != 16)
    return Status(StatusCode::Unsupported, "alignment is " + std::to_string(spec.alignment) + "; " +
                                               schedule.algorithm + " copies 16 bytes at a time");
  if (spec.dropout)
    return Status(StatusCode::Unsupported, schedule.algorithm + " drops no probabilities");
  if (spec.results == Results::Partial)
    return Status(StatusCode::Unsupported,
                  "results is partial; " + schedule.algorithm + " merges its shares itself");
  if (l.tile_m != 8 && l.tile_m != 16 && l.tile_m != 32)
    return badKnob(schedule, "tile_m", "8, 16 or 32");
  if (l.tile_n != 16 && l.tile_n != 32)
    return badKnob(schedule, "tile_n", "16 or 32");
  if (l.warps != 2 && l.warps != 4 && l.warps != 8)
    return badKnob(schedule, "warps", "2, 4 or 8");
  if (l.stages < 2 || l.stages > kMostStages)
    return badKnob(schedule, "stages", "2 to " + std::to_string(kMostStages));
  if (l.least < 1 || l.least > 64)
    return badKnob(schedule, "least", "1 to 64");
  if (l.l2 != 0 && l.l2 != 128 && l.l2 != 256)
    return badKnob(schedule, "l2", "0, 128 or 256");
  FLASHPLUS_RETURN_IF_ERROR(fitsRegisters(schedule, l.registers(), l.kMaxRegisters));
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  if (l.tma)
    schema.tensor_maps = {{Operand::K, l.tile_n, 64}, {Operand::V, l.tile_n, 64}};
  return schema;
}

/// Packed rows of a problem that the kernel is still for, in several tiles where one of so many has no room:
/// it reads the keys once a tile, the next best kernel once a query head.
constexpr int kMostRows = 32;

ItemTraits traits(const Schedule &schedule) {
  const int rows = schedule.get("tile_m");
  return {.rows = rows,
          .keys = schedule.get("tile_n"),
          .short_tiles = rows > 0 ? std::max(1, kMostRows / rows) : 1,
          .packs_heads = true,
          .merges = true};
}

/// Keys of a range, at least: some 64 KB of K and V, below which merging costs more than the reading that it
/// spares (docs/rationale/decode.md).
int leastKeys(const KernelSpec &spec) {
  return 16 * std::clamp(int(std::bit_floor(unsigned(2048 / (spec.head_dim_qk + spec.head_dim_v)))), 4, 32);
}

/// Keys of a step: of boxes, as many as make some 8 KB, since small ones are requests like large ones; but
/// for 32 rows, whose scores of 32 keys spill beside a window.
int stepKeys(const Algorithm &algorithm, const KernelSpec &spec, int tile_m) {
  const bool small = spec.head_dim_qk + spec.head_dim_v <= 128 && tile_m <= 16;
  return &algorithm == &kSm90Decode && small ? 32 : 16;
}

/// As many stages as fit: what a block has in flight is what hides memory's latency. Eight warps, for the
/// latency of a step, or four where the rings of eight would have no three stages. The hint to bring in 128
/// bytes at a miss is for chips where it was measured.
std::optional<Schedule> schedule(const Algorithm &algorithm, const KernelSpec &spec, const Target &target,
                                 int shared_memory, int tile_m) {
  const int keys = stepKeys(algorithm, spec, tile_m);
  for (int warps : {8, 4, 2})
    for (int stages = kMostStages; stages >= (warps == 8 ? 3 : 2); --stages) {
      Schedule s{std::string(algorithm.name),
                 {{"least", leastKeys(spec) / keys},
                  {"stages", stages},
                  {"tile_m", tile_m},
                  {"tile_n", keys},
                  {"warps", warps}}};
      if (&algorithm == &kSm80Decode)
        s.knobs["l2"] = target.chip >= 90 ? 128 : 0;
      s = completeSchedule(std::move(s));
      const auto schema = launch(spec, s, target);
      if (schema && schema->shared_memory <= shared_memory)
        return s;
    }
  return std::nullopt;
}

/// For 8, 16 and 32 packed rows.
template <const Algorithm *algorithm>
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  std::vector<Candidate> result;
  for (int tile_m : {32, 16, 8})
    if (auto s = schedule(*algorithm, spec, target, shared_memory, tile_m))
      result.push_back({std::move(*s)});
  return result;
}

constexpr int kTileM[] = {8, 16, 32}, kTileN[] = {16, 32}, kWarps[] = {2, 4, 8},
              kStages[] = {2, 3, 4, 5, 6, 8}, kLeast[] = {4, 8, 16, 32}, kL2[] = {0, 128, 256};
constexpr Knob kKnobs[] = {{"tile_m", 8, kTileM},  {"tile_n", 16, kTileN}, {"warps", 8, kWarps},
                           {"stages", 3, kStages}, {"least", 4, kLeast},   {"l2", 0, kL2}};
/// A box brings in what it has: no hint.
constexpr std::span<const Knob> kBoxKnobs(kKnobs, std::size(kKnobs) - 1);

} // namespace

const Algorithm kSm80Decode = {"sm80.decode",
                               Operation::Forward,
                               TargetKind::Gpu,
                               kMmaSync,
                               candidates<&kSm80Decode>,
                               launch,
                               traits,
                               kKnobs,
                               /*worth_trying=*/nullptr,
                               /*pages=*/true};
const Algorithm kSm90Decode = {
    "sm90.decode", Operation::Forward, TargetKind::Gpu, kTma, candidates<&kSm90Decode>, launch,
    traits,        kBoxKnobs};

} // namespace flashplus
