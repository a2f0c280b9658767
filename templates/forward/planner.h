// SPDX-License-Identifier: BSD-3-Clause
// Plans a forward: one step, or, where the keys are split, a forward of shares and a combine. Where new keys
// go into the cache first, an append comes before.
#pragma once

#include "templates/planner.h"

#include <vector>

namespace flashplus {

/// The workspace's parts.
enum ForwardPart { kWorkCounter, kPartialO, kPartialLse, kRotatedQ, kNewLengths };

/// What the kernels of a forward of this spec (without a score, unless it has one) are for: it without the
/// append, which is a step of its own.
template <class Spec> Spec withoutAppend(Spec spec) {
  spec.append = false;
  return spec;
}

/// The kernels of shares of the keys of a forward of this spec. Sinks are the combine's.
inline KernelSpec sharesOf(KernelSpec spec) {
  spec.results = Results::Partial;
  spec.sinks = Sinks::None;
  return spec;
}

/// Makes the plans of a forward whose spec (results final) is `spec`.
class ForwardPlanner final : public Planner {
public:
  ForwardPlanner(const KernelSpec &spec, const DeviceProfile &device);
  Result<Plan> plan(const Bounds &bounds, const PlanOptions &options) const override;

private:
  Result<Plan> planAttention(const Bounds &bounds, const PlanOptions &options) const;

  KernelSpec spec_; ///< Without the append.
  DeviceProfile device_;
  std::vector<Candidate> candidates_;
  std::vector<Candidate> without_merges_; ///< For who says how the keys are shared, or that they may not be.
  std::vector<Candidate> combine_;        ///< Of the second step of a split forward.
  std::vector<Candidate> append_;         ///< Of the first step of a forward with an append; else empty.
};

/// One plan.
Result<Plan> planForward(const KernelSpec &spec, const Bounds &bounds, const DeviceProfile &device,
                         const PlanOptions &options);

/// The kernels that any plan of `spec` on `device` can use.
std::vector<PlannedKernel> reachableForwardKernels(const KernelSpec &spec, const DeviceProfile &device);

} // namespace flashplus
