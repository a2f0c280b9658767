// SPDX-License-Identifier: BSD-3-Clause
// Which of a spec's schedules a problem gets: from the default table or from a tuning record.
#pragma once

#include "templates/registry.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace flashplus {

/// A choice from a tuning record: what was fastest for problems of this size.
struct TunedSchedule {
  int64_t queries = 0, keys = 0; ///< As measured: query rows of a sequence, keys that a row sees at most.
  Schedule schedule;
  std::string record; ///< Where it is from, for people.
};

struct PlanOptions {
  int num_splits = 0;           ///< 0 = chosen here, 1 = never split, n = exactly n shares of the keys.
  bool batch_invariant = false; ///< The result of a row may not depend on what else is in the batch: no split
                                ///< whose count depends on the grid.
  bool any_order = false;       ///< Of a backward: dq may be summed in an order that differs from run to run.
  std::optional<Schedule> schedule; ///< The only one to consider; its knobs are checked.
  /// Not owned. Preferred to the default table, the one of the nearest size first (distance in octaves of
  /// keys and of queries), of equally near ones the earlier; not for batch_invariant plans, which are the
  /// same wherever they run.
  std::span<const TunedSchedule> tuned;
  std::vector<Schedule> rejected; ///< Schedules that turned out not to compile: the next feasible one is
                                  ///< taken.
};

/// Keys that one query row may see.
int64_t visibleKeys(const SpecFields &spec, const Bounds &bounds);

/// Whether a kernel that divides the keys among its blocks and merges what they share (ItemTraits::merges)
/// may serve a problem; the failure finishes a sentence. It has no say in how many shares there are, what it
/// adds up in which order depends on the batch, and it numbers all tiles in an i32.
Status mayMerge(const Bounds &bounds, const PlanOptions &options);

/// The first candidate that is for this many keys, or a later one whose shorter tile still covers a
/// sequence's queries, or of which few tiles do (ItemTraits::short_tiles). The choice uses the bounds only,
/// so it is the same for every run of a plan. `candidates` must not be empty.
const Candidate &chooseSchedule(const std::vector<Candidate> &candidates, const KernelSpec &spec,
                                const Bounds &bounds, const PlanOptions &options);

/// The tuned choice of the size nearest to the problem's that is feasible here; null if there is none. For
/// fewer queries than were measured, the table's rule for short queries still holds, so such a choice needs a
/// tile that they fill; and what was measured on sequences of one length says nothing of others where one of
/// `candidates` has items by lengths.
const TunedSchedule *chooseTuned(const std::vector<Candidate> &candidates, const KernelSpec &spec,
                                 const Bounds &bounds, const DeviceProfile &device,
                                 const PlanOptions &options);

} // namespace flashplus
