// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/planner.h"

#include <algorithm>
#include <iterator>

namespace flashplus {
namespace {

/// Most shares of the keys; bounds the workspace and the combine loop. As FlashAttention's num_splits.
constexpr int kMaxSplits = 128;

/// Most workers: each has a byte of what is zeroed of a workspace.
constexpr int kMostWorkers = 255;
static_assert(kMostWorkers <= kWorkspaceZeroed);

/// Key tiles that one work item may visit.
int64_t keyTiles(const KernelSpec &spec, const Bounds &bounds, const ItemTraits &item) {
  const int64_t keys = std::min(bounds.max_seqlen_k, visibleKeys(spec, bounds) + item.rows);
  return ceilDiv(std::max<int64_t>(keys, 0), item.keys);
}

/// How many shares to split the keys into: 1 when the grid fills the device or there is little to split, else
/// the least number whose last wave is within 15 % of the fullest possible (the rule of FlashAttention's
/// heuristic).
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

/// How an algorithm whose items have several key heads (ItemTraits::share_keys) divides the work.
struct Division {
  int key_heads; ///< Key heads of an item.
  int splits;
};

/// All the key heads that an item can have, so that it reads memory in order, and some shares of the keys a
/// worker: processors are not equally fast at any moment, least of all a shared machine's, and the last item
/// ends the step. Fewer heads an item where shares would be shorter than share_keys. `tiles`: items with all
/// heads in one; `forced`: the shares, if they are no choice.
Division divide(const ItemTraits &item, const KernelSpec &spec, const Bounds &bounds, int64_t tiles,
                int workers, int forced) {
  // 16 workers, 8192 keys, one, two and four items a worker: 0.59, 0.75 and 0.85 of the read bandwidth
  // (docs/performance.md).
  constexpr int kItemsPerWorker = 4, kHeadsForBalance = 4;
  int64_t key_heads = std::clamp<int64_t>(bounds.heads_k, 1, item.key_heads);
  auto items = [&] { return std::max<int64_t>(1, tiles * ceilDiv(bounds.heads_k, key_heads)); };
  const int64_t most =
      forced ? forced : std::clamp<int64_t>(visibleKeys(spec, bounds) / item.share_keys, 1, kMaxSplits);
  while (key_heads > 1 && items() * most < workers)
    key_heads = ceilDiv(key_heads, 2);
  if (forced)
    return {int(key_heads), forced};
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
      return {int(key_heads), int(splits)};
  return {int(key_heads), int(least)};
}

/// Query heads whose work items are mixed, so that the longest of all come first (a right-bounded mask): as
/// many as have their keys and values in the shared cache together. Else 1, so that neighbours share the keys
/// of one head. A packed item counts as one head, also one of several key heads.
int headsPerSection(const KernelSpec &spec, const Bounds &bounds, const LaunchSchema &launch,
                    const DeviceProfile &device, const ItemShape &item) {
  const bool ordered = launch.blocks_per_sm || !isGpu(device.target.isa); // items are started one by one
  if (!ordered || !spec.bounded_right || bounds.heads_k == 0)
    return 1;
  const int64_t bytes =
      std::max<int64_t>(1, item.key_heads * bounds.max_seqlen_k * (spec.head_dim_qk + spec.head_dim_v) *
                               dtypeBytes(spec.dtypeKV()));
  const int64_t packed = item.packs_heads ? bounds.group() : 1;
  const int64_t group = std::max<int64_t>(1, bounds.heads_q / bounds.heads_k / packed);
  return int(std::clamp<int64_t>(std::max<int64_t>(1, device.shared_cache / bytes) * group, 1,
                                 std::max<int64_t>(1, bounds.batch * bounds.heads_q / packed)));
}

/// Whether blocks take their items from a counter: where items differ in length and there is more than one a
/// block.
bool wantsWorkCounter(const PlanStep &step, const ItemTraits &traits, const DeviceProfile &device) {
  return (step.spec.bounded_right || traits.by_lengths) && step.launch.blocks_per_sm &&
         step.work_items > int64_t(step.launch.blocks_per_sm) * device.multiprocessors;
}

/// What pages are, in a message about those that are too small.
std::string runText(const Bounds &bounds) {
  return "pages are of " + std::to_string(bounds.key_run) +
         " keys or odd multiples of it (1: also with leftpad_k and a table of pages)";
}

/// What the kernels of a schedule leave, with so many shares of the keys.
Results resultsOf(const ItemTraits &item, int splits) {
  return item.merges ? Results::Merged : splits > 1 ? Results::Partial : Results::Final;
}

/// Blocks that divide all the work among themselves, and their shares of at most two items each
/// (templates/forward/decode/merge.h).
void addWorkers(Plan &plan, const ItemTraits &item, const KernelSpec &spec) {
  const int64_t workers = plan.steps.back().item.workers;
  const int64_t rows = 2 * workers * item.rows;
  plan.parts[kWorkCounter] = {0, roundUp(int(workers), 4)};
  plan.parts[kPartialO] = {kWorkspaceZeroed, ceilDiv(rows * spec.head_dim_v * 4, 256) * 256};
  plan.parts[kPartialLse] = {kWorkspaceZeroed + plan.parts[kPartialO].bytes, rows * 8};
  plan.zeroed_bytes = plan.parts[kWorkCounter].bytes;
  plan.workspace_bytes = plan.parts[kPartialLse].offset + plan.parts[kPartialLse].bytes;
}

KernelSpec combineSpec(const KernelSpec &forward) {
  KernelSpec spec;
  spec.op = Operation::Combine;
  spec.dtype = forward.dtype;
  spec.dtype_o = forward.dtype_o;
  spec.head_dim_v = forward.head_dim_v;
  spec.alignment = dtypeBytes(forward.dtypeO());
  spec.sinks = forward.sinks;
  return spec;
}

KernelSpec appendSpec(const KernelSpec &forward) {
  KernelSpec spec;
  spec.op = Operation::Append;
  spec.dtype = forward.dtype;
  spec.head_dim_qk = forward.head_dim_qk;
  spec.head_dim_v = forward.head_dim_v;
  spec.alignment = dtypeBytes(forward.dtype); // whether rows are aligned is seen when they are moved
  return spec;
}

/// Puts the append before the steps of `plan`.
Status prependAppend(const KernelSpec &spec, const Candidate &append, const Bounds &bounds,
                     const DeviceProfile &device, Plan &plan) {
  const KernelSpec step_spec = appendSpec(spec);
  auto step = makeStep(step_spec, append.schedule, device.target,
                       {.rows = append.item.rows, .side = append.item.side}, bounds);
  if (!step)
    return step.status();
  plan.steps.insert(plan.steps.begin(), std::move(*step));
  auto addPart = [&](ForwardPart part, int64_t bytes) {
    const int64_t offset = std::max(kWorkspaceZeroed, ceilDiv(plan.workspace_bytes, 256) * 256);
    plan.parts[part] = {offset, bytes};
    plan.workspace_bytes = offset + bytes;
  };
  addPart(kNewLengths, std::max<int64_t>(bounds.batch, 1) * 4);
  if (bounds.rotates_q)
    addPart(kRotatedQ, bounds.total_q * bounds.heads_q * spec.head_dim_qk * dtypeBytes(spec.dtype));
  return Status::ok();
}

} // namespace

ForwardPlanner::ForwardPlanner(const KernelSpec &spec, const DeviceProfile &device)
    : spec_(withoutAppend(spec)), device_(device), candidates_(feasibleCandidates(spec_, device)),
      combine_(feasibleCandidates(combineSpec(spec), device)) {
  std::ranges::copy_if(candidates_, std::back_inserter(without_merges_),
                       [](const Candidate &c) { return !c.item.merges; });
  if (spec.append)
    append_ = feasibleCandidates(appendSpec(spec), device);
}

Result<Plan> planForward(const KernelSpec &spec, const Bounds &bounds, const DeviceProfile &device,
                         const PlanOptions &options) {
  return ForwardPlanner(spec, device).plan(bounds, options);
}

Result<Plan> ForwardPlanner::plan(const Bounds &bounds, const PlanOptions &options) const {
  auto plan = planAttention(bounds, options);
  if (plan && !append_.empty())
    FLASHPLUS_RETURN_IF_ERROR(prependAppend(spec_, append_.front(), bounds, device_, *plan));
  return plan;
}

Result<Plan> ForwardPlanner::planAttention(const Bounds &bounds, const PlanOptions &options) const {
  const KernelSpec &spec = spec_;
  const DeviceProfile &device = device_;
  if (options.num_splits < 0 || options.num_splits > kMaxSplits)
    return invalidArgument("num_splits is " + std::to_string(options.num_splits) + "; it must be 0 to " +
                           std::to_string(kMaxSplits));
  const Status merging = mayMerge(bounds, options);
  const auto &allowed = merging ? candidates_ : without_merges_;
  const auto cuts = [&](const Candidate &c) { return c.item.key_run > bounds.key_run; };
  std::vector<Candidate> fewer;
  if (options.schedule) {
    if (auto known = launchSchema(spec, *options.schedule, device.target); !known)
      return known.status();
    fewer = {{.schedule = *options.schedule, .item = itemTraits(*options.schedule)}};
    if (fewer[0].item.merges && !merging)
      return Status(StatusCode::Unsupported, "schedule '" + options.schedule->text() +
                                                 "' divides the keys itself; " + merging.message());
    if (cuts(fewer[0]))
      return Status(StatusCode::Unsupported, "schedule '" + options.schedule->text() + "' copies " +
                                                 std::to_string(fewer[0].item.key_run) +
                                                 " keys of a page together; " + runText(bounds));
  }
  const bool some = options.schedule || !options.rejected.empty() || std::ranges::any_of(allowed, cuts);
  if (some && !options.schedule)
    std::ranges::remove_copy_if(allowed, std::back_inserter(fewer), cuts);
  std::erase_if(fewer,
                [&](const Candidate &c) { return std::ranges::count(options.rejected, c.schedule) != 0; });
  const auto &candidates = some ? fewer : allowed;
  if (candidates.empty()) {
    FLASHPLUS_RETURN_IF_ERROR(checkDTypes(spec, device.target));
    return Status(StatusCode::Unsupported,
                  "no schedule of '" + spec.text() + "' fits " + device.target.text());
  }
  const TunedSchedule *tuned = chooseTuned(allowed, spec, bounds, device, options);
  const Candidate *chosen = tuned ? nullptr : &chooseSchedule(candidates, spec, bounds, options);
  const Schedule &schedule = tuned ? tuned->schedule : chosen->schedule;

  Plan plan;
  plan.schedule_source = options.schedule ? "forced" : tuned ? tuned->record : "default table";
  const ItemTraits traits = tuned ? itemTraits(schedule) : chosen->item;
  ItemShape item{.rows = traits.rows, .packs_heads = traits.packs_heads};
  const int forced_splits = options.num_splits ? options.num_splits : options.batch_invariant ? 1 : 0;
  const Geometry whole = geometryOf(item, bounds); // with one key head an item
  if (traits.merges) {
    item.workers = std::min(kMostWorkers, device.multiprocessors);
  } else if (traits.share_keys) {
    const Division division =
        divide(traits, spec, bounds, bounds.batch * whole.tiles, device.multiprocessors, forced_splits);
    item.key_heads = division.key_heads;
    item.num_splits = division.splits;
  } else {
    item.num_splits = forced_splits
                          ? forced_splits
                          : chooseSplits(whole.items, keyTiles(spec, bounds, traits), device.multiprocessors);
  }

  KernelSpec forward = spec;
  forward.results = resultsOf(traits, item.num_splits);
  if (forward.isPartial())
    forward = sharesOf(std::move(forward));
  auto step = makeStep(forward, schedule, device.target, item, bounds);
  if (!step)
    return step.status();
  step->item.heads_per_section = headsPerSection(spec, bounds, step->launch, device, item);
  if (wantsWorkCounter(*step, traits, device)) {
    plan.parts[kWorkCounter] = {0, 8};
    plan.zeroed_bytes = 8;
    plan.workspace_bytes = kWorkspaceZeroed;
  }
  plan.steps.push_back(std::move(*step));
  if (item.workers)
    addWorkers(plan, traits, spec);
  if (item.num_splits == 1)
    return plan;

  const Candidate &combine = combine_.front();
  auto merge =
      makeStep(combineSpec(spec), combine.schedule, device.target, {.rows = combine.item.rows}, bounds);
  if (!merge)
    return merge.status();
  plan.steps.push_back(std::move(*merge));
  const int64_t rows = int64_t(item.num_splits) * bounds.total_q * bounds.heads_q;
  plan.parts[kPartialO] = {kWorkspaceZeroed, ceilDiv(rows * spec.head_dim_v * 4, 256) * 256};
  plan.parts[kPartialLse] = {kWorkspaceZeroed + plan.parts[kPartialO].bytes, rows * 4};
  plan.workspace_bytes = plan.parts[kPartialLse].offset + plan.parts[kPartialLse].bytes;
  return plan;
}

std::vector<PlannedKernel> reachableForwardKernels(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<PlannedKernel> result;
  auto add = [&](const KernelSpec &s) {
    for (Candidate &c : feasibleCandidates(s, device)) {
      result.push_back({s, std::move(c.schedule)});
      if (c.item.merges)
        result.back().spec.results = Results::Merged;
    }
  };
  KernelSpec attention = withoutAppend(spec);
  add(attention);
  add(sharesOf(attention));
  add(combineSpec(spec));
  if (spec.append)
    add(appendSpec(spec));
  return result;
}

} // namespace flashplus
