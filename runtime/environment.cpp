// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/environment.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace flashplus {
namespace {

std::string value(const char *name) {
  const char *text = std::getenv(name);
  return text ? text : "";
}

/// 0 unless it is a positive number.
int positive(const char *name) {
  const std::string text = value(name);
  int number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && stop == text.data() + text.size() && number > 0 ? number : 0;
}

} // namespace

Environment Environment::read() {
  Environment e;
  e.cache_dir = value("FLASHPLUS_CACHE_DIR");
  if (e.cache_dir.empty()) {
    // The XDG base directory specification: a relative path there is to be ignored.
    const std::string xdg = value("XDG_CACHE_HOME"), home = value("HOME");
    if (xdg.starts_with("/"))
      e.cache_dir = xdg + "/flashplus";
    else if (!home.empty())
      e.cache_dir = home + "/.cache/flashplus";
  }
  e.compiler = value("FLASHPLUS_COMPILER");
  e.nvjitlink = value("FLASHPLUS_NVJITLINK");
  e.ptxas = value("FLASHPLUS_PTXAS");
  e.path = value("PATH");
  e.cuda_target = value("FLASHPLUS_CUDA_TARGET");
  e.cpu_target = value("FLASHPLUS_CPU_TARGET");
  e.cuda_shared_memory = positive("FLASHPLUS_CUDA_SHARED_MEMORY");
  e.tuning = value("FLASHPLUS_TUNING");
  e.debug_kernels = value("FLASHPLUS_DEBUG_KERNELS");
  e.debug_values = value("FLASHPLUS_DEBUG_VALUES");
  e.late_compile = value("FLASHPLUS_LATE_COMPILE");
  e.num_threads = std::min(positive("FLASHPLUS_NUM_THREADS"), kMaxThreads);
  return e;
}

} // namespace flashplus
