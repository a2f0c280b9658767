// SPDX-License-Identifier: BSD-3-Clause
#include "templates/plan.h"

#include "templates/algorithm.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace flashplus {

namespace {

constexpr const Algorithm *kAlgorithms[] = {&kCpuFlash, &kCpuStream, &kSm90Flash, &kSm80Flash, &kCpuCombine, &kGpuCombine};

/// Most shares of the keys; bounds the workspace and the combine loop. As FlashAttention's num_splits.
constexpr int kMaxSplits = 128;

const Algorithm *findAlgorithm(const Schedule &schedule) {
  for (const Algorithm *a : kAlgorithms)
    if (a->name == schedule.algorithm)
      return a;
  return nullptr;
}

/// Every candidate for a spec on a device, in the order of the tables.
std::vector<Candidate> feasibleCandidates(const KernelSpec &spec, const DeviceProfile &device) {
  if (isGpu(device.target.isa) && spec.dtype == DType::F32)
    return {}; // the tensor-core templates take 16-bit inputs
  std::vector<Candidate> result;
  for (const Algorithm *a : kAlgorithms)
    if (a->op == spec.op && a->runs_on(device.target.isa))
      for (Candidate &c : a->candidates(spec, device.target, device.shared_memory_per_block))
        result.push_back(std::move(c));
  return result;
}

/// Keys that one query row may see.
int64_t visibleKeys(const KernelSpec &spec, const ForwardBounds &bounds) {
  const int64_t window = int64_t(bounds.window_left) + bounds.window_right + 1;
  return spec.bounded_left && spec.bounded_right ? std::min(bounds.max_seqlen_k, window) : bounds.max_seqlen_k;
}

/// Query heads of a key head that share a work item.
int64_t packedHeads(const Schedule &schedule, const ForwardBounds &bounds) {
  const Algorithm *a = findAlgorithm(schedule);
  return a && a->packs_heads ? std::max<int64_t>(1, bounds.heads_q / std::max<int64_t>(1, bounds.heads_k)) : 1;
}

/// The first candidate that is for this many keys, or a later one whose shorter tile still covers a sequence's queries, or of
/// which few tiles do (Algorithm::short_tiles). The choice uses the bounds only, so it is the same for every run of a plan.
const Schedule &chooseSchedule(const std::vector<Candidate> &candidates, const KernelSpec &spec,
                               const ForwardBounds &bounds, const PlanOptions &options) {
  // Different tiles sum in different orders; a batch-invariant result must not depend on the longest sequence.
  if (options.batch_invariant)
    return candidates.front().schedule;
  const int64_t keys = visibleKeys(spec, bounds);
  const Schedule *best = nullptr;
  for (const Candidate &c : candidates) {
    const int rows = rowsPerWorkItem(c.schedule);
    const int64_t wanted = bounds.max_seqlen_q * packedHeads(c.schedule, bounds);
    const bool another = best && best->algorithm != c.schedule.algorithm;
    const int tiles = another ? findAlgorithm(c.schedule)->short_tiles : 1;
    if (keys <= c.most_keys && (!best || (rows * tiles >= wanted && rows < rowsPerWorkItem(*best))))
      best = &c.schedule;
  }
  return best ? *best : candidates.front().schedule;
}

/// The tuned choice of the size nearest to the problem's that is feasible here; null if there is none. For fewer queries than
/// were measured, the table's rule for short queries still holds, so such a choice needs a tile that they fill.
const TunedSchedule *chooseTuned(const KernelSpec &spec, const ForwardBounds &bounds, const DeviceProfile &device,
                                 const PlanOptions &options) {
  if (options.schedule || options.batch_invariant)
    return nullptr;
  const TunedSchedule *best = nullptr;
  double nearest = std::numeric_limits<double>::infinity();
  auto octaves = [](int64_t a, int64_t b) {
    return std::fabs(std::log2(double(std::max<int64_t>(a, 1))) - std::log2(double(std::max<int64_t>(b, 1))));
  };
  for (const TunedSchedule &t : options.tuned) {
    if (bounds.max_seqlen_q < t.queries && bounds.max_seqlen_q < rowsPerWorkItem(t.schedule))
      continue;
    const double distance =
        octaves(t.keys, visibleKeys(spec, bounds)) + octaves(t.queries, bounds.max_seqlen_q);
    if (distance >= nearest || std::ranges::count(options.rejected, t.schedule))
      continue;
    const auto launch = launchSchema(spec, t.schedule, device.target);
    if (!launch || (isGpu(device.target.isa) && launch->shared_memory > device.shared_memory_per_block))
      continue;
    best = &t;
    nearest = distance;
  }
  return best;
}

/// Key tiles that one work item may visit.
int64_t keyTiles(const KernelSpec &spec, const ForwardBounds &bounds, const Schedule &schedule) {
  const int64_t keys = std::min(bounds.max_seqlen_k, visibleKeys(spec, bounds) + schedule.get("tile_m"));
  return ceilDiv(std::max<int64_t>(keys, 0), schedule.get("tile_n"));
}

/// How many shares to split the keys into: 1 when the grid fills the device or there is little to split, else the
/// least number whose last wave is within 15 % of the fullest possible (the rule of FlashAttention's heuristic).
int chooseSplits(int64_t items, int64_t key_tiles, int slots) {
  if (items >= 0.8 * slots || key_tiles <= 4)
    return 1;
  const int most = int(std::min<int64_t>({kMaxSplits, key_tiles / 2, std::max<int64_t>(slots, 1)}));
  double best = 0;
  auto efficiency = [&](int splits) {
    const double waves = double(items) * splits / slots;
    return waves / double(ceilDiv(items * splits, slots));
  };
  for (int splits = 1; splits <= most; ++splits)
    best = std::max(best, efficiency(splits));
  for (int splits = 1; splits <= most; ++splits)
    if (efficiency(splits) >= 0.85 * best)
      return splits;
  return 1;
}

/// How an algorithm whose items have several key heads (Algorithm::share_keys) divides the work.
struct Division {
  int64_t key_heads; ///< Key heads of an item.
  int splits;
};

/// All the key heads that an item can have, so that it reads memory in order, and some shares of the keys a worker: processors
/// are not equally fast at any moment, least of all a shared machine's, and the last item ends the step. Fewer heads an item
/// where shares would be shorter than share_keys. `tiles`: items with all heads in one; `forced`: the shares, if they are no choice.
Division divide(const Algorithm &algorithm, const Schedule &schedule, const KernelSpec &spec, const ForwardBounds &bounds,
                int64_t tiles, int workers, int forced) {
  // 16 workers, 8192 keys, one, two and four items a worker: 0.59, 0.75 and 0.85 of the read bandwidth (docs/performance.md).
  constexpr int kItemsPerWorker = 4, kHeadsForBalance = 4;
  int64_t key_heads = std::clamp<int64_t>(bounds.heads_k, 1, schedule.get("heads"));
  auto items = [&] { return std::max<int64_t>(1, tiles * ceilDiv(bounds.heads_k, key_heads)); };
  const int64_t most =
      forced ? forced : std::clamp<int64_t>(visibleKeys(spec, bounds) / algorithm.share_keys, 1, kMaxSplits);
  while (key_heads > 1 && items() * most < workers)
    key_heads = ceilDiv(key_heads, 2);
  if (forced)
    return {key_heads, forced};
  const int64_t wanted = workers > 1 ? int64_t(kItemsPerWorker) * workers : 1;
  while (key_heads > kHeadsForBalance && items() * most < wanted)
    key_heads = ceilDiv(key_heads, 2);
  // The least number of shares from there on whose last wave leaves few workers idle.
  auto busy = [&](int64_t splits) {
    const int64_t all = items() * splits;
    return double(all) / double(ceilDiv(all, workers) * workers);
  };
  const int64_t least = std::min(most, ceilDiv(wanted, items()));
  double best = 0;
  for (int64_t splits = least; splits <= most; ++splits)
    best = std::max(best, busy(splits));
  for (int64_t splits = least; splits <= most; ++splits)
    if (busy(splits) >= 0.95 * best)
      return {key_heads, int(splits)};
  return {key_heads, int(least)};
}

/// Query heads whose work items are mixed, so that the longest of all come first (a right-bounded mask): as many as have
/// their keys and values in the second-level cache together. Else 1, so that neighbours share the keys of one head.
/// A packed item counts as one head, also one of several key heads.
int headsPerSection(const KernelSpec &spec, const ForwardBounds &bounds, const PlanStep &step, const Target &target,
                    int64_t key_heads) {
  const bool ordered = step.launch.blocks_per_sm || !isGpu(target.isa); // items are started one by one
  if (!ordered || !spec.bounded_right || bounds.heads_k == 0)
    return 1;
  // Of the 50 MB that the GPUs with such kernels have; about the last cache level of a server CPU.
  constexpr int64_t kCacheBytes = int64_t(32) << 20;
  const int64_t bytes = std::max<int64_t>(
      1, key_heads * bounds.max_seqlen_k * (spec.head_dim_qk + spec.head_dim_v) * dtypeBytes(spec.dtype));
  const int64_t packed = packedHeads(step.schedule, bounds);
  const int64_t group = std::max<int64_t>(1, bounds.heads_q / bounds.heads_k / packed);
  return int(std::clamp<int64_t>(std::max<int64_t>(1, kCacheBytes / bytes) * group, 1,
                                 std::max<int64_t>(1, bounds.batch * bounds.heads_q / packed)));
}

/// Whether blocks take their items from a counter: where items differ in length and there is more than one a block.
bool wantsWorkCounter(const KernelSpec &spec, const PlanStep &step, const DeviceProfile &device) {
  return spec.bounded_right && step.launch.blocks_per_sm &&
         step.work_items > int64_t(step.launch.blocks_per_sm) * device.multiprocessors;
}

KernelSpec combineSpec(const KernelSpec &forward) {
  KernelSpec spec;
  spec.op = Operation::Combine;
  spec.dtype = forward.dtype;
  spec.head_dim_v = forward.head_dim_v;
  spec.alignment = dtypeBytes(forward.dtype);
  return spec;
}

Result<PlanStep> makeStep(const KernelSpec &spec, const Schedule &schedule, const Target &target,
                          int64_t work_items) {
  auto schema = launchSchema(spec, schedule, target);
  if (!schema)
    return schema.status();
  // Blocks that loop step past the end by at most one grid, which must not overflow an i32 either.
  constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max() - (1 << 20);
  if (work_items > kMaxGrid)
    return invalidArgument("the problem needs " + std::to_string(work_items) +
                           " work items (query tiles * heads * batch * splits); at most " +
                           std::to_string(kMaxGrid) + " are allowed");
  return PlanStep{spec, schedule, std::move(*schema), work_items};
}

} // namespace

int rowsPerWorkItem(const Schedule &schedule) {
  const int tile_m = schedule.get("tile_m");
  return tile_m ? tile_m : schedule.get("rows");
}

Status badKnob(const Schedule &schedule, std::string_view name, std::string_view allowed) {
  return {StatusCode::Unsupported, "schedule '" + schedule.text() + "': " + std::string(name) + " is " +
                                       std::to_string(schedule.get(name)) + "; it must be " +
                                       std::string(allowed)};
}

std::vector<Schedule> feasibleSchedules(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<Schedule> schedules;
  for (Candidate &c : feasibleCandidates(spec, device))
    schedules.push_back(std::move(c.schedule));
  return schedules;
}

std::vector<Schedule> scheduleSpace(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<Schedule> result;
  for (const Algorithm *a : kAlgorithms) {
    if (a->op != spec.op || !a->runs_on(device.target.isa))
      continue;
    std::vector<Schedule> made{{std::string(a->name), {}}};
    for (const Knob &knob : a->knobs) {
      std::vector<Schedule> longer;
      for (const Schedule &s : made)
        for (int value : knob.values) {
          longer.push_back(s);
          longer.back().knobs.emplace(knob.name, value);
        }
      made = std::move(longer);
    }
    for (Schedule &s : made) {
      const auto launch = launchSchema(spec, s, device.target);
      const bool fits = launch && (!isGpu(device.target.isa) || launch->shared_memory <= device.shared_memory_per_block);
      if (fits && (!a->worth_trying || a->worth_trying(spec, s, device.target)))
        result.push_back(std::move(s));
    }
  }
  return result;
}

Schedule completeSchedule(Schedule schedule) {
  if (const Algorithm *a = findAlgorithm(schedule))
    for (const Knob &knob : a->knobs)
      schedule.knobs.emplace(knob.name, knob.standard);
  return schedule;
}

Result<LaunchSchema> launchSchema(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const Algorithm *a = findAlgorithm(schedule);
  if (!a || a->op != spec.op || !a->runs_on(target.isa)) {
    std::string known;
    for (const Algorithm *k : kAlgorithms)
      if (k->op == spec.op && k->runs_on(target.isa))
        known += (known.empty() ? "" : ", ") + std::string(k->name);
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "': '" + schedule.algorithm +
                                               "' is not an algorithm for this operation on " + target.text() +
                                               "; there is " + known);
  }
  if (isGpu(target.isa) && spec.dtype == DType::F32)
    return Status(StatusCode::Unsupported, "dtype fp32 is not supported on " + target.text() + "; use fp16 or bf16");
  for (const auto &[name, value] : schedule.knobs)
    if (std::ranges::find(a->knobs, name, &Knob::name) == a->knobs.end()) {
      std::string known;
      for (const Knob &knob : a->knobs)
        known += (known.empty() ? "" : ", ") + std::string(knob.name);
      return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "': '" + name + "' is not a knob of " +
                                                 schedule.algorithm + "; there is " + known);
    }
  return a->launch(spec, schedule, target);
}

ForwardPlanner::ForwardPlanner(const KernelSpec &spec, const DeviceProfile &device)
    : spec_(spec), device_(device), candidates_(feasibleCandidates(spec, device)),
      combine_(feasibleSchedules(combineSpec(spec), device)) {}

Result<ForwardPlan> planForward(const KernelSpec &spec, const ForwardBounds &bounds, const DeviceProfile &device,
                                const PlanOptions &options) {
  return ForwardPlanner(spec, device).plan(bounds, options);
}

Result<ForwardPlan> ForwardPlanner::plan(const ForwardBounds &bounds, const PlanOptions &options) const {
  const KernelSpec &spec = spec_;
  const DeviceProfile &device = device_;
  if (options.num_splits < 0 || options.num_splits > kMaxSplits)
    return invalidArgument("num_splits is " + std::to_string(options.num_splits) + "; it must be 0 to " +
                           std::to_string(kMaxSplits));
  std::vector<Candidate> fewer;
  if (options.schedule) {
    if (auto known = launchSchema(spec, *options.schedule, device.target); !known)
      return known.status();
    fewer = {{*options.schedule}};
  } else if (!options.rejected.empty()) {
    fewer = candidates_;
  }
  std::erase_if(fewer, [&](const Candidate &c) { return std::ranges::count(options.rejected, c.schedule) != 0; });
  const auto &candidates = options.schedule || !options.rejected.empty() ? fewer : candidates_;
  if (candidates.empty())
    return Status(StatusCode::Unsupported,
                  spec.dtype == DType::F32 && isGpu(device.target.isa)
                      ? "dtype fp32 is not supported on " + device.target.text() + "; use fp16 or bf16"
                      : "no schedule of '" + spec.text() + "' fits " + device.target.text());
  const TunedSchedule *tuned = chooseTuned(spec, bounds, device, options);
  const Schedule &schedule = tuned ? tuned->schedule : chooseSchedule(candidates, spec, bounds, options);

  ForwardPlan plan;
  plan.schedule_source = options.schedule ? "forced" : tuned ? tuned->record : "default table";
  plan.tile_m = schedule.get("tile_m");
  const int64_t packed = packedHeads(schedule, bounds);
  plan.packs_heads = findAlgorithm(schedule)->packs_heads;
  const int64_t m_tiles = ceilDiv(bounds.max_seqlen_q * packed, plan.tile_m);
  const int forced_splits = options.num_splits ? options.num_splits : options.batch_invariant ? 1 : 0;
  int64_t items = bounds.batch * (bounds.heads_q / packed) * m_tiles;
  if (findAlgorithm(schedule)->share_keys) {
    const Division division = divide(*findAlgorithm(schedule), schedule, spec, bounds, bounds.batch * m_tiles,
                                     device.multiprocessors, forced_splits);
    plan.key_heads = int(division.key_heads);
    plan.num_splits = division.splits;
    items = bounds.batch * ceilDiv(bounds.heads_k, division.key_heads) * m_tiles;
  } else {
    plan.num_splits =
        forced_splits ? forced_splits : chooseSplits(items, keyTiles(spec, bounds, schedule), device.multiprocessors);
  }

  KernelSpec forward = spec;
  forward.split = plan.num_splits > 1;
  auto step = makeStep(forward, schedule, device.target, items * plan.num_splits);
  if (!step)
    return step.status();
  plan.heads_per_section = headsPerSection(spec, bounds, *step, device.target, plan.key_heads);
  const bool counts = wantsWorkCounter(spec, *step, device);
  plan.steps.push_back(std::move(*step));
  if (counts) {
    plan.work_counter_bytes = 8;
    plan.workspace_bytes = kWorkspaceZeroed;
  }
  if (!forward.split)
    return plan;
  plan.workspace_bytes = kWorkspaceZeroed;

  const KernelSpec combine = combineSpec(spec);
  const Schedule &combine_schedule = combine_.front();
  const int64_t blocks = ceilDiv(bounds.max_seqlen_q, rowsPerWorkItem(combine_schedule));
  auto merge = makeStep(combine, combine_schedule, device.target, bounds.batch * bounds.heads_q * blocks);
  if (!merge)
    return merge.status();
  plan.steps.push_back(std::move(*merge));
  const int64_t rows = int64_t(plan.num_splits) * bounds.total_q * bounds.heads_q;
  plan.partial_o_offset = plan.workspace_bytes;
  plan.partial_lse_offset = plan.partial_o_offset + ceilDiv(rows * spec.head_dim_v * 4, 256) * 256;
  plan.workspace_bytes = plan.partial_lse_offset + rows * 4;
  return plan;
}

std::vector<PlannedKernel> reachableKernels(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<PlannedKernel> result;
  auto add = [&](const KernelSpec &s) {
    for (Schedule &schedule : feasibleSchedules(s, device))
      result.push_back({s, std::move(schedule)});
  };
  add(spec);
  if (spec.op == Operation::Forward && !spec.split) {
    KernelSpec split = spec;
    split.split = true;
    add(split);
    add(combineSpec(spec));
  }
  return result;
}

DeviceProfile offlineProfile(const Target &target) {
  DeviceProfile profile;
  profile.target = target;
  profile.shared_memory_per_block = target.sharedMemoryPerBlock();
  profile.shared_memory_per_sm = target.sharedMemoryPerBlock() + 1024;
  return profile;
}

} // namespace flashplus
