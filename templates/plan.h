// SPDX-License-Identifier: BSD-3-Clause
// The plan half of the templates: from a spec, bounds and a device to launch steps. No LLVM, no driver call,
// no allocation on a device: pure, cheap and deterministic, so that keys and plans are made by a process that
// never compiles. What an algorithm needs (threads, shared memory, feasibility) lives in its template's folder.
#pragma once

#include "spec/artifact.h"
#include "spec/kernel_spec.h"
#include "spec/params.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace flashplus {

/// What planning needs to know of a device.
struct DeviceProfile {
  Target target;
  int multiprocessors = 1;             ///< SMs of a GPU; worker threads of a CPU.
  int shared_memory_per_block = 0;     ///< Bytes, opt-in maximum (GPU).
  int shared_memory_per_sm = 0;        ///< Bytes (GPU).
};

/// The largest problem that a plan serves.
struct ForwardBounds {
  int64_t batch = 0;
  int64_t max_seqlen_q = 0; ///< Upper bound of one sequence's query rows.
  int64_t max_seqlen_k = 0;
  int64_t total_q = 0;      ///< Query rows of the whole batch: batch * seqlen_q, or the ragged total.
  int64_t heads_q = 0;
  int64_t heads_k = 0;
  int window_left = -1;     ///< -1 = unbounded; only used to guess how many keys a row sees.
  int window_right = -1;
};

/// A schedule of a target's table and the problems that it is for.
struct Candidate {
  Schedule schedule;
  int64_t most_keys = std::numeric_limits<int64_t>::max(); ///< Keys that a query row sees, at most.
};

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
  std::optional<Schedule> schedule; ///< The only one to consider; its knobs are checked.
  /// Not owned. Preferred to the default table, the one of the nearest size first (distance in octaves of keys and of queries), of
  /// equally near ones the earlier; not for batch_invariant plans, which are the same wherever they run.
  std::span<const TunedSchedule> tuned;
  std::vector<Schedule> rejected; ///< Schedules that turned out not to compile: the next feasible one is taken.
};

/// One kernel launch of a plan.
struct PlanStep {
  KernelSpec spec;
  Schedule schedule;
  LaunchSchema launch;    ///< `entry` included; equals that of the artifact compiled for it.
  int64_t work_items = 0; ///< Grid size, but for kernels that loop over the items (LaunchSchema::blocks_per_sm).
};

/// Bytes at the start of a workspace that are zero before the first run and left so by every run
/// (FLASHPLUS_WORKSPACE_ZEROED of the C API).
inline constexpr int64_t kWorkspaceZeroed = 256;

struct ForwardPlan {
  std::vector<PlanStep> steps; ///< One, or split forward + combine.
  std::string schedule_source; ///< "default table", "forced", or the record that it is from.
  int num_splits = 1;
  int tile_m = 0;
  bool packs_heads = false; ///< A work item has all query heads of a key head (Algorithm::packs_heads).
  int key_heads = 1;        ///< Key heads of a work item; more than 1 only with Algorithm::share_keys.
  int heads_per_section = 1;
  int64_t workspace_bytes = 0;    ///< 256-byte aligned memory on the device.
  int64_t work_counter_bytes = 0; ///< At the start of the workspace; 0 without a counter.
  int64_t partial_o_offset = 0;   ///< Bytes from the start of the workspace; of a split forward.
  int64_t partial_lse_offset = 0;
};

/// Every schedule that a spec can meet on a device, best first for large problems; the later ones serve short queries
/// and stand in for one that does not compile. Warm-up compiles all of them, so that no shape of a warmed spec compiles. Empty when nothing fits.
std::vector<Schedule> feasibleSchedules(const KernelSpec &spec, const DeviceProfile &device);

/// Every feasible schedule worth timing for a spec on a device, of all algorithms, in a fixed order: the product of the
/// knobs' values.
std::vector<Schedule> scheduleSpace(const KernelSpec &spec, const DeviceProfile &device);

/// The schedule with the standard value of every knob that it does not name. Unknown names stay, for launchSchema to refuse.
Schedule completeSchedule(Schedule schedule);

/// The launch schema of a spec under a complete schedule. Fails with Unsupported when the algorithm or a knob is not known,
/// or a knob is outside what its algorithm allows, naming it.
Result<LaunchSchema> launchSchema(const KernelSpec &spec, const Schedule &schedule, const Target &target);

/// Makes the plans of a forward whose (unsplit) spec is `spec`. What they have in common is worked out once, so that a plan for
/// another length costs about a microsecond. Immutable.
class ForwardPlanner {
public:
  ForwardPlanner(const KernelSpec &spec, const DeviceProfile &device);
  Result<ForwardPlan> plan(const ForwardBounds &bounds, const PlanOptions &options) const;

private:
  KernelSpec spec_;
  DeviceProfile device_;
  std::vector<Candidate> candidates_;
  std::vector<Schedule> combine_; ///< Of the second step of a split forward.
};

/// One plan.
Result<ForwardPlan> planForward(const KernelSpec &spec, const ForwardBounds &bounds, const DeviceProfile &device,
                                const PlanOptions &options);

/// The kernels that any plan of `spec` on `device` can use: what warm-up compiles.
struct PlannedKernel {
  KernelSpec spec;
  Schedule schedule;
};
std::vector<PlannedKernel> reachableKernels(const KernelSpec &spec, const DeviceProfile &device);

/// A profile for warming a cache without the device: the chip's limits, and `multiprocessors` of no importance.
DeviceProfile offlineProfile(const Target &target);

} // namespace flashplus
