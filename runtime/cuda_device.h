// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "runtime/cuda_driver.h"
#include "runtime/device.h"

#include <vector>

namespace flashplus {

/// Number of GPUs; NoDevice says why there is none.
Result<int> cudaDeviceCount(const cuda::Driver &driver);

/// GPU `ordinal`, through its primary context, which other users of the process share. NoDevice when it is older than
/// compute capability 8.0. `driver` must outlive the device.
Result<std::unique_ptr<Device>> createCudaDevice(const cuda::Driver &driver, int ordinal);

/// The chip of our table whose code runs on compute capability `cc`: itself, or the newest older one of its generation;
/// 0 if none.
int chipFor(int cc);

} // namespace flashplus
