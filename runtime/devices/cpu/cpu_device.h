// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "runtime/devices/device.h"
#include "runtime/devices/cpu/kernel_debug.h"
#include "runtime/devices/cpu/thread_pool.h"

#include <optional>

namespace flashplus {

/// The host processor. `pool` must outlive the device. NoDevice when the processor is older than x86-64-v3, or lacks what
/// `target` wants (unset: all that the processor has). `debug` hears of every kernel.
Result<std::unique_ptr<Device>> createCpuDevice(ThreadPool &pool, std::optional<Target> target = {},
                                               KernelDebug debug = {});

} // namespace flashplus
