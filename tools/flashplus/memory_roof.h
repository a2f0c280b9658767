// SPDX-License-Identifier: BSD-3-Clause
// How fast memory is read: what a decode step is held against.
#pragma once

#include "spec/status.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace flashplus::tool {

/// A plain read of host memory by several threads at once.
class HostRoof {
public:
  /// `threads`: 0 = all. OutOfMemory where the memory to read is not there.
  static Result<HostRoof> make(int threads);
  /// Bytes a second of one pass over the memory, which is larger than caches are.
  double measure() const;

private:
  int threads_ = 1;
  std::vector<uint64_t> words_;
};

} // namespace flashplus::tool
