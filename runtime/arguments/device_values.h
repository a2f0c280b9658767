// SPDX-License-Identifier: BSD-3-Clause
// $FLASHPLUS_DEBUG_VALUES: lengths, tables of pages and slots that lie on a device are looked at before a
// launch, as those of a CPU always are.
#pragma once

#include "flashplus/flashplus.h"
#include "runtime/arguments/score_table.h"
#include "runtime/devices/device.h"

namespace flashplus {

/// Waits for `stream`, reads back every array of integers that kernels find rows by, and checks the call as
/// if it were the CPU's. InvalidArgument is the CPU's: it names the array, the sequence, the entry, its value
/// and what is allowed. `args` must have passed the operation's own check. Not under capture.
Status checkDeviceValues(const flashplus_forward_args &args, Device &device, ScoreTable &scores,
                         void *stream);
Status checkDeviceValues(const flashplus_backward_args &args, Device &device, ScoreTable &scores,
                         void *stream);
inline Status checkDeviceValues(const flashplus_merge_args &, Device &, ScoreTable &, void *) {
  return Status::ok(); // reads no lengths
}

} // namespace flashplus
