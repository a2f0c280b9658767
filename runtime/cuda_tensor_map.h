// SPDX-License-Identifier: BSD-3-Clause
// Tensor maps (CUtensorMap) for kernels that copy tiles with TMA.
#pragma once

#include "runtime/cuda_driver.h"
#include "runtime/device.h"

#include <cstddef>

namespace flashplus {

/// Encodes `maps` one after the other into `out` (64-byte aligned, kTensorMapBytes each). `tensors` are q, k, v. Fails with
/// the driver's message when it refuses a layout.
Status encodeTensorMaps(const cuda::Driver &driver, std::span<const TensorMap> maps,
                        std::span<const TensorLayout> tensors, std::byte *out);

} // namespace flashplus
