// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace flashplus::tool {

/// Calls `body(i)` for each i below `count` on `jobs` threads, the caller among them, and returns when all
/// are done. `body` must be thread-safe.
template <class Body> void inParallel(size_t count, int jobs, Body body) {
  std::atomic<size_t> next = 0;
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < count;)
      body(i);
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < jobs; ++i)
    threads.emplace_back(work);
  work();
}

} // namespace flashplus::tool
