// SPDX-License-Identifier: BSD-3-Clause
// From a checked problem and a launch record to the params of each step. Every operation binds its own;
// nothing here allocates, locks or formats text.
#pragma once

#include "runtime/arguments/problem.h"
#include "runtime/devices/device.h"
#include "runtime/plans/launch_record.h"

namespace flashplus {

/// Enqueues the steps of a record. `problem` is the one that its operation's checks made (problemAs); what
/// the plan decides of its params is filled in. `workspace` as the plan asked for; it stays in use until the
/// steps are done.
Status launch(const LaunchRecord &record, Device &device, AttentionProblem &problem, void *workspace,
              void *stream);

} // namespace flashplus
