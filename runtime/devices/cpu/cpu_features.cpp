// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/cpu_features.h"

#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace flashplus {

Result<Target> hostTarget() {
#if defined(__x86_64__)
  // The compiler's cpuid support also checks that the operating system saves the wide registers.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    return Target{__builtin_cpu_supports("avx512bf16") ? Isa::X86_64_v4_Bf16 : Isa::X86_64_v4, 0};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
      __builtin_cpu_supports("f16c"))
    return Target{Isa::X86_64_v3, 0};
  return Status(StatusCode::NoDevice,
                "this processor lacks AVX2, FMA, BMI2 or F16C (x86-64-v3), the least that the "
                "CPU target needs");
#else
  return Status(StatusCode::NoDevice, "the CPU target needs an x86-64 processor");
#endif
}

std::string processorModel() {
  char text[49] = "";
#if defined(__x86_64__)
  unsigned words[12] = {}, highest = __get_cpuid_max(0x80000000, nullptr);
  if (highest >= 0x80000004)
    for (unsigned i = 0; i < 3; ++i)
      __get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
  std::memcpy(text, words, sizeof words);
#endif
  std::string model = text;
  model.erase(model.find_last_not_of(' ') + 1);
  model.erase(0, model.find_first_not_of(' '));
  return model.empty() ? "unknown processor" : model;
}

bool includes(const Target &host, const Target &wanted) { return int(wanted.isa) <= int(host.isa); }

} // namespace flashplus
