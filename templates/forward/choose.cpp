// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/choose.h"

#include <algorithm>
#include <cmath>

namespace flashplus {

int64_t visibleKeys(const SpecFields &spec, const Bounds &bounds) {
  const int64_t window = int64_t(bounds.window_left) + bounds.window_right + 1;
  return spec.bounded_left && spec.bounded_right ? std::min(bounds.max_seqlen_k, window)
                                                 : bounds.max_seqlen_k;
}

Status mayMerge(const Bounds &bounds, const PlanOptions &options) {
  auto refused = [](std::string why) { return Status(StatusCode::Unsupported, std::move(why)); };
  if (options.num_splits)
    return refused("num_splits is " + std::to_string(options.num_splits) + " and must be 0");
  if (options.batch_invariant)
    return refused("batch_invariant must not be set");
  constexpr double kLeastRows = 8, kLeastKeys = 16, kMost = 1 << 30; // rows and keys of a tile; tiles
  const double rows = double(bounds.max_seqlen_q) * double(bounds.group());
  const double tiles = double(bounds.batch) * double(bounds.heads_k) * (rows / kLeastRows + 1) *
                       (double(bounds.max_seqlen_k) / kLeastKeys + 1);
  if (tiles > kMost) // bounds may be far above what any memory holds
    return refused("there may be more than 2^30 tiles of keys");
  return Status::ok();
}

/// Sequences of their own lengths have no empty item with an algorithm that has items by lengths; others
/// would only pay for the search.
static bool isPassedOver(const Schedule &schedule, const ItemTraits &item,
                         const std::vector<Candidate> &candidates, const Bounds &bounds) {
  if (item.by_lengths || !bounds.ragged())
    return item.by_lengths && !bounds.ragged();
  return std::ranges::any_of(candidates, [&](const Candidate &other) {
    return other.item.by_lengths && other.schedule.algorithm == schedule.algorithm;
  });
}

/// Whether sequences are as short as `c` is for, and enough to care: a long one among them would need most of
/// the time.
static bool isForSuchShort(const Candidate &c, const Bounds &bounds) {
  constexpr int64_t kSpread = 8; // the longest of 160 exponential lengths is 6 times their mean
  constexpr int64_t kEnough = 4096;
  return bounds.total_q >= kEnough && bounds.total_q <= c.mean_queries * bounds.batch &&
         bounds.max_seqlen_q <= kSpread * c.mean_queries;
}

const Candidate &chooseSchedule(const std::vector<Candidate> &candidates, const KernelSpec &spec,
                                const Bounds &bounds, const PlanOptions &options) {
  // Different tiles sum in different orders; a batch-invariant result must not depend on the longest
  // sequence.
  if (options.batch_invariant)
    return candidates.front();
  const int64_t keys = visibleKeys(spec, bounds);
  const Candidate *best = nullptr;
  for (const Candidate &c : candidates) {
    if (isPassedOver(c.schedule, c.item, candidates, bounds))
      continue;
    if (c.mean_queries) {
      if (best && best->schedule.algorithm == c.schedule.algorithm && c.item.rows < best->item.rows &&
          isForSuchShort(c, bounds))
        best = &c;
      continue;
    }
    const int64_t wanted = bounds.max_seqlen_q * c.item.packedHeads(bounds);
    const bool another = best && best->schedule.algorithm != c.schedule.algorithm &&
                         !(best->item.merges && c.item.merges); // of two that merge, the first is better
    const int tiles = another ? c.item.short_tiles : 1;
    if (keys <= c.most_keys && (!best || (c.item.rows * tiles >= wanted && c.item.rows < best->item.rows)))
      best = &c;
  }
  return best ? *best : candidates.front();
}

const TunedSchedule *chooseTuned(const std::vector<Candidate> &candidates, const KernelSpec &spec,
                                 const Bounds &bounds, const DeviceProfile &device,
                                 const PlanOptions &options) {
  if (options.schedule || options.batch_invariant)
    return nullptr;
  const TunedSchedule *best = nullptr;
  double nearest = std::numeric_limits<double>::infinity();
  auto octaves = [](int64_t a, int64_t b) {
    return std::fabs(std::log2(double(std::max<int64_t>(a, 1))) - std::log2(double(std::max<int64_t>(b, 1))));
  };
  for (const TunedSchedule &t : options.tuned) {
    // Those of a plan with several steps are of one each.
    if (const Algorithm *a = findAlgorithm(t.schedule.algorithm); !a || a->op != spec.op)
      continue;
    const ItemTraits item = itemTraits(t.schedule);
    if (item.key_run > bounds.key_run || (item.adds_dq && !options.any_order) ||
        isPassedOver(t.schedule, item, candidates, bounds))
      continue;
    if (bounds.max_seqlen_q < t.queries && bounds.max_seqlen_q < item.rows)
      continue;
    // A kernel for few rows is one for no more, however near what was measured.
    if (item.merges &&
        (!mayMerge(bounds, options) || bounds.max_seqlen_q * item.packedHeads(bounds) > item.rows))
      continue;
    // Nor is one that divides the keys among items of few rows, beyond what it was measured for or tables
    // take.
    const int64_t few =
        std::max<int64_t>(int64_t(item.rows) * item.short_tiles, t.queries * item.packedHeads(bounds));
    if (item.share_keys && bounds.max_seqlen_q * item.packedHeads(bounds) > few)
      continue;
    const double distance =
        octaves(t.keys, visibleKeys(spec, bounds)) + octaves(t.queries, bounds.max_seqlen_q);
    if (distance >= nearest || std::ranges::count(options.rejected, t.schedule) ||
        !runsOnDevice(spec, t.schedule, device))
      continue;
    best = &t;
    nearest = distance;
  }
  return best;
}

} // namespace flashplus
