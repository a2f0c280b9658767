// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/processors.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <sched.h>
#include <string>
#include <thread>

namespace flashplus {
namespace {

int processorsOfAffinity() {
  // The kernel refuses a mask smaller than its own; more than 64 k processors are not expected.
  for (int count = CPU_SETSIZE; count <= 1 << 16; count *= 2) {
    cpu_set_t *set = CPU_ALLOC(size_t(count));
    if (!set)
      break;
    const size_t bytes = CPU_ALLOC_SIZE(size_t(count));
    const bool read = sched_getaffinity(0, bytes, set) == 0;
    const int usable = read ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (read)
      return usable;
  }
  return int(std::thread::hardware_concurrency());
}

/// Start of a small file; empty if it cannot be read.
std::string readStart(const char *path) {
  char text[128];
  std::FILE *file = std::fopen(path, "re");
  if (!file)
    return {};
  const size_t size = std::fread(text, 1, sizeof text, file);
  std::fclose(file);
  return {text, size};
}

} // namespace

std::optional<int> processorsOfQuota(std::string_view text) {
  const char *at = text.data(), *const end = at + text.size();
  int64_t quota = 0, period = 0;
  auto [after_quota, no_quota] = std::from_chars(at, end, quota);
  if (no_quota != std::errc() || after_quota == end || *after_quota != ' ')
    return std::nullopt;
  const auto [after_period, no_period] = std::from_chars(after_quota + 1, end, period);
  if (no_period != std::errc() || (after_period != end && *after_period != '\n') || quota <= 0 || period <= 0)
    return std::nullopt;
  return int(std::min<int64_t>((quota - 1) / period + 1, 1 << 16));
}

int usableProcessors() {
  int processors = processorsOfAffinity();
  // Inside a container this is the container's own group (cgroup v2).
  if (auto allowed = processorsOfQuota(readStart("/sys/fs/cgroup/cpu.max")))
    processors = std::min(processors, *allowed);
  return std::max(processors, 1);
}

} // namespace flashplus
