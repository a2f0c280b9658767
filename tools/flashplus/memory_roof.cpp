// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/memory_roof.h"

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

namespace flashplus::tool {

namespace {

/// Sixteen sums at a time, so that no addition waits for another; `count` is a multiple of 16.
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t sum(const uint64_t *words,
                                                                          size_t count) {
  uint64_t part[16] = {};
  for (size_t i = 0; i < count; i += 16)
    for (size_t j = 0; j < 16; ++j)
      part[j] += words[i + j];
  uint64_t all = 0;
  for (uint64_t p : part)
    all += p;
  return all;
}

constexpr size_t kBytes = size_t{256} << 20, kBlock = size_t{1} << 20;

} // namespace

Result<HostRoof> HostRoof::make(int threads) {
  HostRoof roof;
  roof.threads_ = threads ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  try {
    roof.words_.assign(kBytes / sizeof(uint64_t), 1);
  } catch (const std::bad_alloc &) {
    return Status(StatusCode::OutOfMemory, "no host memory for " + std::to_string(kBytes) +
                                               " bytes to read, which say how fast memory is");
  }
  return Result<HostRoof>(std::move(roof));
}

double HostRoof::measure() const {
  std::atomic<size_t> next = 0;
  std::atomic<uint64_t> all = 0; // so that no read can be left out
  auto read = [&] {
    for (size_t i; (i = next.fetch_add(1)) < kBytes / kBlock;)
      all += sum(words_.data() + i * (kBlock / sizeof(uint64_t)), kBlock / sizeof(uint64_t));
  };
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads_; ++i)
      others.emplace_back(read);
    read();
  }
  return static_cast<double>(kBytes) /
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace flashplus::tool
