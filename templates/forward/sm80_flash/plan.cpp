// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "templates/forward/sm80_flash/layout.h"
#include "templates/registry.h"
#include "templates/schedule_table.h"

#include <algorithm>
#include <optional>

namespace flashplus {

Sm80FlashLayout Sm80FlashLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm80FlashLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.warps = schedule.get("warps");
  l.stages = schedule.get("stages");
  l.m_frags = l.warps > 0 ? l.tile_m / (16 * l.warps) : 0;
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.dqk_pad = roundUp(l.dqk, 16);
  l.dv_pad = roundUp(l.dv, 16);
  l.element = dtypeBytes(spec.dtype);
  l.plain_score = spec.score.isIdentity();
  l.paged = spec.pagedKeys();
  l.dropout = spec.dropout;
  return l;
}

namespace {

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const auto l = Sm80FlashLayout::of(spec, schedule);
  if (l.warps < 1 || l.warps > 8)
    return badKnob(schedule, "warps", "1 to 8");
  if (l.m_frags < 1 || l.m_frags > 2 || l.tile_m != l.m_frags * 16 * l.warps)
    return badKnob(schedule, "tile_m", "16 or 32 times warps");
  if (l.tile_n < 16 || l.tile_n > 128 || l.tile_n % 16)
    return badKnob(schedule, "tile_n", "a multiple of 16 up to 128");
  if (l.stages < 1 || l.stages > 2)
    return badKnob(schedule, "stages", "1 or 2");
  if (l.registers() > l.kMaxRegisters)
    return Status(StatusCode::Unsupported,
                  "schedule '" + schedule.text() + "' needs " + std::to_string(l.registers()) +
                      " registers a thread for accumulators" + (l.plain_score ? "" : " and scores") +
                      "; at most " + std::to_string(l.kMaxRegisters) + " are allowed");
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.bytes(), target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"), .keys = schedule.get("tile_n")};
}

constexpr TableRow kTable[] = {
#include "templates/forward/sm80_flash/table.inc"
};

/// Two fragments a warp halve the shared-memory reads per MMA, and two blocks of four warps on a
/// multiprocessor overlap each other's softmax: a tall tile with as many keys as registers hold, staged where
/// that still leaves room for two blocks, or a low one where O is too wide for both. None where a
/// multiprocessor holds only one such block: the table's eight warps then share a tall tile.
std::optional<Schedule> twoBlocks(const KernelSpec &spec, const Target &target, int shared_memory) {
  const int dv = roundUp(spec.head_dim_v, 16);
  for (int tile_n : {64, 48}) {
    Schedule s = completeSchedule(
        {"sm80.flash",
         {{"tile_m", dv > 128 ? 64 : 128}, {"tile_n", tile_n}, {"warps", 4}, {"stages", dv > 64 ? 1 : 2}}});
    // A multiprocessor has 1 KB more than a block may take, and each block costs 1 KB.
    if (launch(spec, s, target) && 2 * (Sm80FlashLayout::of(spec, s).bytes() + 1024) <= shared_memory + 1024)
      return s;
  }
  return std::nullopt;
}

/// The schedule of two blocks a multiprocessor or else the table's, and after them what serves short queries
/// and parts with little shared memory.
std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> table;
  std::vector<Candidate> result;
  if (auto best = twoBlocks(spec, target, shared_memory))
    result.push_back({std::move(*best)});
  else
    result = table.of(kSm80Flash, kTable).candidates(spec, target, shared_memory);
  for (int tile_n : {64, 32}) {
    Schedule s = completeSchedule({"sm80.flash", {{"tile_m", 64}, {"tile_n", tile_n}, {"warps", 4}}});
    const auto schema = launch(spec, s, target);
    if (!schema || schema->shared_memory > shared_memory)
      continue;
    const auto same = [&](const Candidate &c) { return c.schedule == s; };
    if (std::ranges::none_of(result, same))
      result.push_back({std::move(s)});
    break; // the widest tile that fits
  }
  return result;
}

constexpr int kTileM[] = {64, 128, 256}, kTileN[] = {32, 48, 64, 80, 96, 128}, kWarps[] = {4, 8},
              kStages[] = {1, 2};
constexpr Knob kKnobs[] = {
    {"tile_m", 128, kTileM}, {"tile_n", 64, kTileN}, {"warps", 4, kWarps}, {"stages", 1, kStages}};

} // namespace

const Algorithm kSm80Flash = {
    "sm80.flash", Operation::Forward,       TargetKind::Gpu, kMmaSync, candidates, launch, traits,
    kKnobs,       /*worth_trying=*/nullptr, /*pages=*/true};

} // namespace flashplus
