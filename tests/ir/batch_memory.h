// SPDX-License-Identifier: BSD-3-Clause
// A batch in the emulator's memory, for kernels that only look at its lengths.
#pragma once

#include "spec/params.h"
#include "tests/emulator/run.h"

#include <doctest/doctest.h>

namespace flashplus::test {

struct BatchMemory {
  emu::GlobalMemory memory;

  void *put(const void *from, size_t bytes) {
    void *at = memory.allocate(bytes);
    REQUIRE(memory.write(reinterpret_cast<uint64_t>(at), from, bytes));
    return at;
  }
  void *put(const std::vector<int32_t> &values) { return put(values.data(), values.size() * 4); }
  /// Where each of these begins, and the end of the last.
  void *cumulative(const std::vector<int32_t> &lengths) {
    std::vector<int32_t> all{0};
    for (int32_t n : lengths)
      all.push_back(all.back() + n);
    return put(all);
  }
  static void setPageSize(ForwardParams &p, int32_t size) {
    const PageDivisor divisor = PageDivisor::of(size);
    p.page_size = divisor.page_size, p.page_multiplier = divisor.multiplier, p.page_shift = divisor.shift;
  }
};

} // namespace flashplus::test
