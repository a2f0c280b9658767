// SPDX-License-Identifier: BSD-3-Clause
// The state of floating point that this library is written for, whatever its caller's is: rounding to
// nearest, denormals kept, no traps.
#pragma once

#include <cstdint>

#if !defined(__x86_64__)
#include <cfenv>
#endif

namespace flashplus {

/// Sets it for a scope of one thread and puts back what was there, flags that were raised included. Some
/// nanoseconds.
class StandardFloatingPoint {
public:
#if defined(__x86_64__)
  StandardFloatingPoint() : sse_(__builtin_ia32_stmxcsr()) {
    asm volatile("fnstcw %0" : "=m"(x87_));
    if ((sse_ & ~kFlags) != kSse)
      __builtin_ia32_ldmxcsr(kSse);
    if (x87_ != kX87) // libc asks it for the rounding mode when it prints and reads numbers
      asm volatile("fldcw %0" : : "m"(kX87));
  }
  ~StandardFloatingPoint() {
    if (__builtin_ia32_stmxcsr() != sse_)
      __builtin_ia32_ldmxcsr(sse_);
    if (x87_ != kX87)
      asm volatile("fldcw %0" : : "m"(x87_));
  }

private:
  static constexpr uint32_t kFlags = 0x3f, kSse = 0x1f80;
  static constexpr uint16_t kX87 = 0x37f;
  uint32_t sse_;
  uint16_t x87_;
#else
  StandardFloatingPoint() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~StandardFloatingPoint() { std::fesetenv(&before_); }

private:
  std::fenv_t before_;
#endif

public:
  StandardFloatingPoint(const StandardFloatingPoint &) = delete;
  StandardFloatingPoint &operator=(const StandardFloatingPoint &) = delete;
};

} // namespace flashplus
