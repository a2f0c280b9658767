// SPDX-License-Identifier: BSD-3-Clause
// NVIDIA GPUs as devices, through the driver's table of functions. All functions here are thread-safe and
// change neither the calling thread's current context nor the current device.
#pragma once

#include "runtime/devices/cuda/cuda_driver.h"
#include "runtime/devices/device.h"

#include <optional>
#include <vector>

namespace flashplus {

/// Number of GPUs, at least 1; NoDevice says why there is none.
Result<int> cudaDeviceCount(const cuda::Driver &driver);

/// To run as a lesser GPU would, for tests and comparisons.
struct CudaLimits {
  std::optional<Isa> isa;          ///< Instructions to use at most; all if unset.
  int shared_memory_per_block = 0; ///< Bytes; 0: what there is.
};

/// GPU `ordinal` of the driver's numbering, through its primary context, which other users of the process
/// share and which the device keeps until it is destroyed. The device is the caller's; `driver` must outlive
/// it, and it must outlive its kernels. `limits` keep it to less than it has. Errors: NoDevice when there is
/// no such GPU, or when it is older than compute capability 8.0 or its driver too old; else what the driver
/// refuses, in its words.
Result<std::unique_ptr<Device>> createCudaDevice(const cuda::Driver &driver, int ordinal,
                                                 const CudaLimits &limits = {});

/// The chip of our table whose code runs on compute capability `cc`: itself, or the newest older one of its
/// generation; 0 if none.
int chipFor(int cc);

} // namespace flashplus
