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
  const std::string threads = value("FLASHPLUS_NUM_THREADS");
  int count = 0;
  const auto [stop, error] = std::from_chars(threads.data(), threads.data() + threads.size(), count);
  if (error == std::errc() && stop == threads.data() + threads.size() && count > 0)
    e.num_threads = std::min(count, kMaxThreads);
  return e;
}

} // namespace flashplus
