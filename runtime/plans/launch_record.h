// SPDX-License-Identifier: BSD-3-Clause
// A plan as far as a launch needs it: plain data, copied out of the memo and read without a lock.
#pragma once

#include "templates/plan.h"

#include <cstdint>
#include <span>
#include <type_traits>

namespace flashplus {

struct ResidentKernel;

struct StepRecord {
  const ResidentKernel *kernel = nullptr; ///< The table's, which gives none away
                                          ///< that a call in flight or a plan may have.
  Operation op = Operation::Forward;
  bool maps = false; ///< The kernel wants tensor maps.
  ItemShape item;
};

/// What every launch reads is first: of a plan of one step without a workspace the memo copies no more.
struct LaunchRecord {
  int64_t num_steps = 0;
  int64_t workspace_bytes = 0;
  StepRecord steps[kMaxSteps];
  int64_t zeroed_bytes = 0;
  int64_t parts[kMaxParts] = {-1, -1, -1, -1, -1}; ///< Bytes from the start of the workspace; -1: the plan
                                                   ///< has no use for it.

  /// Where part `index` of the workspace is; null for one that the plan has no use for.
  void *part(void *workspace, int index) const {
    return parts[index] < 0 ? nullptr : static_cast<char *>(workspace) + parts[index];
  }
};
static_assert(std::is_trivially_copyable_v<LaunchRecord>);

/// Of a plan whose steps run `kernels`, one each.
LaunchRecord recordOf(const Plan &plan, std::span<const ResidentKernel *const> kernels);

} // namespace flashplus
