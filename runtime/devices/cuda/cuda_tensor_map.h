// SPDX-License-Identifier: BSD-3-Clause
// Tensor maps (CUtensorMap) for kernels that copy tiles with TMA.
#pragma once

#include "runtime/devices/cuda/cuda_driver.h"
#include "runtime/devices/device.h"

#include <cstddef>

namespace flashplus {

/// Maps that were encoded before, since callers come back with the same shapes and often with the same
/// tensors. Of a fixed size; not thread-safe, so a thread has one of its own.
class TensorMapCache {
public:
  /// Writes `maps` one after the other into `out` (64-byte aligned, kTensorMapBytes each). `tensors` are q,
  /// k, v on GPU `ordinal`. Fails with the driver's message when it refuses a layout. A map that is here is
  /// copied; one of another tensor of the same shape, strides and box gets the new address; anything else is
  /// encoded.
  Status encode(const cuda::Driver &driver, int ordinal, std::span<const TensorMap> maps,
                std::span<const TensorLayout> tensors, std::byte *out);

private:
  struct alignas(64) Entry {
    std::byte encoded[kTensorMapBytes] = {};
    const cuda::Driver *driver = nullptr; ///< Null: unused.
    int ordinal = 0;
    TensorMap map;
    TensorLayout layout;
  };
  static constexpr size_t kEntries = 16; ///< A power of two. Three are in use while the shapes of a model
                                         ///< stay the same.
  Entry entries_[kEntries];
};

} // namespace flashplus
