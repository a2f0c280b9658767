// SPDX-License-Identifier: BSD-3-Clause
// From a checked problem and a launch record to the params of each step. Every operation binds its own; nothing here allocates,
// locks or formats text.
#pragma once

#include "runtime/arguments/forward_args.h"
#include "runtime/devices/device.h"
#include "runtime/plans/launch_record.h"

#include <array>

namespace flashplus {

/// What a step's binder reads.
struct BindInput {
  const ForwardProblem &problem;
  const LaunchRecord &record;
  const StepRecord &step;
  Geometry geometry; ///< Of the step's items.
  void *workspace;
};

/// q, k and v for kernels that want tensor maps, indexed by Operand.
std::array<TensorLayout, 3> tensorLayouts(const ForwardProblem &problem);

/// Enqueues the steps of a record. `workspace` as the plan asked for; it stays in use until they are done.
Status launch(const LaunchRecord &record, Device &device, const ForwardProblem &problem, void *workspace, void *stream);

} // namespace flashplus
