// SPDX-License-Identifier: BSD-3-Clause
// A plan: the launches that compute a problem of at most some size, and the memory that they share. The plan
// half of the templates has no LLVM, no driver call and no allocation on a device: pure, cheap and
// deterministic, so that keys and plans are made by a process that never compiles.
#pragma once

#include "spec/artifact.h"
#include "spec/kernel.h"
#include "templates/common/geometry.h"

#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

/// What planning needs to know of a device.
struct DeviceProfile {
  Target target;
  int multiprocessors = 1;         ///< SMs of a GPU; worker threads of a CPU.
  int shared_memory_per_block = 0; ///< Bytes, opt-in maximum (GPU).
  int shared_memory_per_sm = 0;    ///< Bytes (GPU).
  /// Bytes of the cache that all multiprocessors share, as far as neighbouring work may count on it: of a GPU
  /// the largest power of two that its L2 holds. The default is that of A100 to H200 (40 to 60 MB), and about
  /// the last cache level of a server CPU.
  int64_t shared_cache = int64_t(32) << 20;
};

/// A profile for warming a cache without the device: the chip's limits, and `multiprocessors` of no
/// importance.
DeviceProfile offlineProfile(const Target &target);

/// One kernel launch of a plan.
struct PlanStep {
  KernelSpec spec;
  Schedule schedule;
  LaunchSchema launch;    ///< `entry` included; equals that of the artifact compiled for it.
  ItemShape item;
  int64_t work_items = 0; ///< Grid size, but for kernels that loop over the items
                          ///< (LaunchSchema::blocks_per_sm).
};

inline constexpr int kMaxSteps = 4; ///< Of a plan.
inline constexpr int kMaxParts = 5; ///< Of a workspace.

/// A part of the workspace. Which one is what is settled between the planner and the binders of its
/// operations, by position (ForwardPart); a part that a plan has no use for has no bytes.
struct WorkspacePart {
  int64_t offset = 0; ///< Bytes from the start of the workspace.
  int64_t bytes = 0;
};

/// Bytes at the start of a workspace that are zero before the first run and left so by every run
/// (FLASHPLUS_WORKSPACE_ZEROED of the C API).
inline constexpr int64_t kWorkspaceZeroed = 256;

struct Plan {
  std::vector<PlanStep> steps; ///< 1 to kMaxSteps, in stream order.
  std::string schedule_source; ///< "default table", "forced", or the record that it is from.
  WorkspacePart parts[kMaxParts];
  int64_t workspace_bytes = 0; ///< 256-byte aligned memory on the device.
  int64_t zeroed_bytes = 0;    ///< At the start of the workspace: zero before the first run.
};

/// A step whose grid has been checked. `bounds` as the plan's.
Result<PlanStep> makeStep(const KernelSpec &spec, const Schedule &schedule, const Target &target,
                          const ItemShape &item, const Bounds &bounds);

} // namespace flashplus
