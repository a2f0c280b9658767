// SPDX-License-Identifier: BSD-3-Clause
#include "spec/made_once.h"
#include "templates/forward/sm90_flash/layout.h"
#include "templates/schedule_table.h"

#include <algorithm>
#include <limits>

namespace flashplus {

Sm90FlashLayout Sm90FlashLayout::of(const KernelSpec &spec, const Schedule &schedule) {
  Sm90FlashLayout l;
  l.tile_m = schedule.get("tile_m");
  l.tile_n = schedule.get("tile_n");
  l.stages = schedule.get("stages");
  l.q_stages = schedule.get("q_stages");
  l.pingpong = schedule.get("pingpong") != 0;
  l.by_lengths = schedule.get("by_lengths") != 0;
  l.blocks = schedule.get("blocks");
  l.dqk = spec.head_dim_qk;
  l.dv = spec.head_dim_v;
  l.plain_score = spec.score.isIdentity();
  l.dropout = spec.dropout;
  l.partial = spec.isPartial();
  l.paged = spec.pagedKeys();
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
  if (l.blocks < 1 || l.blocks > (l.mathWarpgroups() == 1 ? 2 : 1))
    return badKnob(schedule, "blocks", "1, or 2 with tile_m = 64");
  if (l.by_lengths && l.paged)
    return badKnob(schedule, "by_lengths", "0 with keys in pages, whose boxes take the registers");
  if (spec.alignment != 16)
    return Status(StatusCode::Unsupported,
                  "schedule '" + schedule.text() +
                      "' copies with TMA, which needs rows aligned to 16 bytes; the spec has "
                      "alignment " +
                      std::to_string(spec.alignment));
  if (l.accumulators() > l.mostAccumulators())
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "' needs " +
                                               std::to_string(l.accumulators()) +
                                               " accumulator registers a thread; at most " +
                                               std::to_string(l.mostAccumulators()) + " are allowed");
  // A multiprocessor has 1 KB more than a block may take, and each block costs 1 KB.
  FLASHPLUS_RETURN_IF_ERROR(fitsSharedMemory(schedule, l.blocks * (l.bytes() + 1024) - 1024, target));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = l.threads();
  schema.shared_memory = l.bytes();
  schema.params_size = int64_t(paramLayout(spec).size);
  schema.blocks_per_sm = l.blocks;
  schema.tensor_maps = {{Operand::Q, l.tile_m, 64}, {Operand::K, l.tile_n, 64}, {Operand::V, l.tile_n, 64}};
  return schema;
}

ItemTraits traits(const Schedule &schedule) {
  return {.rows = schedule.get("tile_m"),
          .keys = schedule.get("tile_n"),
          .key_run = 8, // of a swizzle
          .by_lengths = schedule.get("by_lengths") != 0};
}

constexpr TableRow kTable[] = {
#include "templates/forward/sm90_flash/table.inc"
};

/// Of forwards with dropout.
constexpr TableRow kDropoutTable[] = {
#include "templates/forward/sm90_flash/dropout_table.inc"
};

/// The same for sequences of their own lengths: `others` with a line of items by these.
std::vector<Candidate> byLengths(const std::vector<Candidate> &others, const KernelSpec &spec,
                                 const Target &target, int shared_memory) {
  std::vector<Candidate> result;
  for (Candidate c : others) {
    c.schedule.knobs["by_lengths"] = 1;
    if (const auto known = launch(spec, c.schedule, target); known && known->shared_memory <= shared_memory)
      result.push_back(std::move(c));
  }
  // For documents of a few tiles: two blocks of a multiprocessor have items of their own, so that what one
  // costs beside its keys runs under the other one's (docs/rationale/packed-items.md).
  if (spec.head_dim_qk <= 128 && spec.head_dim_v <= 128 && !spec.dropout && spec.score.isIdentity()) {
    Candidate c{.schedule = {std::string(kSm90Flash.name),
                             {{"blocks", 2},
                              {"by_lengths", 1},
                              {"pingpong", 0},
                              {"q_stages", 1},
                              {"stages", 2},
                              {"tile_m", 64},
                              {"tile_n", 64}}},
                .mean_queries = 256};
    if (const auto known = launch(spec, c.schedule, target); known && known->shared_memory <= shared_memory)
      result.push_back(std::move(c));
  }
  return result;
}

std::vector<Candidate> candidates(const KernelSpec &spec, const Target &target, int shared_memory) {
  static constinit MadeOnce<const ScheduleTable> plain, dropout;
  const ScheduleTable &table =
      spec.dropout ? dropout.of(kSm90Flash, kDropoutTable) : plain.of(kSm90Flash, kTable);
  std::vector<Candidate> result = table.candidates(spec, target, shared_memory);
  // Boxes of pages are as long as the power of two in tile_n: 16 keys of 80 cost 20 % (one H200, D 128).
  auto cuts = [](const Candidate &c) { return c.schedule.get("tile_n") % 64 != 0; };
  if (spec.pagedKeys() && !std::ranges::all_of(result, cuts)) {
    std::erase_if(result, cuts);
    result.back().most_keys = std::numeric_limits<int64_t>::max();
  }
  for (Candidate &c : byLengths(result, spec, target, shared_memory))
    result.push_back(std::move(c));
  return result;
}

/// Items by lengths do the same arithmetic in another order: the table has them beside every row.
bool isWorthTrying(const KernelSpec &, const Schedule &schedule, const Target &) {
  return schedule.get("by_lengths") == 0;
}

// A new knob is a row here (its standard value is what older records and tables mean), a field of the layout
// and a check in launch().
constexpr int kTileM[] = {64, 128, 192}, kTileN[] = {64, 80, 96, 112, 128, 144, 160, 176, 192, 224},
              kStages[] = {2, 3, 4}, kQStages[] = {1, 2}, kPingpong[] = {0, 1}, kByLengths[] = {0, 1},
              kBlocks[] = {1, 2};
constexpr Knob kKnobs[] = {{"tile_m", 128, kTileM},    {"tile_n", 128, kTileN},
                           {"stages", 2, kStages},     {"q_stages", 1, kQStages},
                           {"pingpong", 0, kPingpong}, {"by_lengths", 0, kByLengths},
                           {"blocks", 1, kBlocks}};

} // namespace

const Algorithm kSm90Flash = {"sm90.flash",    Operation::Forward,
                              TargetKind::Gpu, kTma | kWgmma | kSetMaxRegisters,
                              candidates,      launch,
                              traits,          kKnobs,
                              isWorthTrying,
                              /*pages=*/true};

} // namespace flashplus
