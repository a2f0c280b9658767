// SPDX-License-Identifier: BSD-3-Clause
// What libstdc++'s archive asks of glibc 2.36, for systems with an older one
// (docs/rationale/portable-binaries.md). Every shipped binary has it, hidden.
#include <cstdint>
#include <cstdlib>
#include <sys/random.h>

/// Of std::random_device. It cannot fail in the original, either.
extern "C" __attribute__((visibility("hidden"))) uint32_t arc4random() {
  uint32_t value = 0;
  // Up to 256 bytes come whole, once the kernel's pool is ready, and are not interrupted.
  if (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value))
    std::abort(); // a kernel without getrandom (before 3.17)
  return value;
}
