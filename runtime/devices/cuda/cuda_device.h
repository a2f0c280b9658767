// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "runtime/devices/cuda/cuda_driver.h"
#include "runtime/devices/device.h"

#include <optional>
#include <vector>

namespace flashplus {

/// Number of GPUs; NoDevice says why there is none.
Result<int> cudaDeviceCount(const cuda::Driver &driver);

/// To run as a lesser GPU would, for tests and comparisons.
struct CudaLimits {
  std::optional<Isa> isa;          ///< Instructions to use at most; all if unset.
  int shared_memory_per_block = 0; ///< Bytes; 0: what there is.
};

/// GPU `ordinal`, through its primary context, which other users of the process share. NoDevice when it is older than
/// compute capability 8.0. `driver` must outlive the device.
/// `limits` keep it to less than it has.
Result<std::unique_ptr<Device>> createCudaDevice(const cuda::Driver &driver, int ordinal, const CudaLimits &limits = {});

/// The chip of our table whose code runs on compute capability `cc`: itself, or the newest older one of its generation;
/// 0 if none.
int chipFor(int cc);

} // namespace flashplus
