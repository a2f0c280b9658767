// SPDX-License-Identifier: BSD-3-Clause
// The host processor as a device: kernels are x86 objects, run by a thread pool before launch() returns.
#pragma once

#include "runtime/devices/cpu/kernel_debug.h"
#include "runtime/devices/cpu/thread_pool.h"
#include "runtime/devices/device.h"

#include <optional>

namespace flashplus {

/// The host processor. The device is the caller's, thread-safe, and has no streams; `pool` must outlive it.
/// `debug` hears of every kernel that is loaded, on the thread that loads it. A thread keeps the scratch that
/// its kernels needed until it ends, as far as that is 4 MiB; what is more lasts for a launch. Errors:
/// NoDevice when the processor is older than x86-64-v3, or lacks what `target` wants (unset: all that the
/// processor has).
Result<std::unique_ptr<Device>> createCpuDevice(ThreadPool &pool, std::optional<Target> target = {},
                                                KernelDebug debug = {});

} // namespace flashplus
