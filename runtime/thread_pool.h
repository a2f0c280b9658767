// SPDX-License-Identifier: BSD-3-Clause
// CPU workers: our own, or the embedder's through flashplus_parallel_for.
#pragma once

#include "flashplus/flashplus.h"

#include <atomic>
#include <functional>
#include <memory>

namespace flashplus {

/// Runs loops over work items. Thread-safe: loops from several threads take turns on our own workers. A loop inside a
/// loop runs on the thread that asks for it.
class ThreadPool {
public:
  /// `threads` >= 1 counts the calling thread. No thread is started before the first loop that has use for one. A child
  /// of fork() starts with no workers and makes its own.
  explicit ThreadPool(int threads);
  ThreadPool(flashplus_parallel_for parallel_for, void *pool, int threads);
  ~ThreadPool();

  int threads() const { return threads_; }

  /// Calls body(worker, item) for every item of [0, items); worker is in [0, threads()) and no two calls of one
  /// loop with one worker number overlap. Returns when all are done.
  void run(int64_t items, const std::function<void(int worker, int64_t item)> &body);

private:
  struct Workers;
  Workers &workers();

  const int threads_;
  flashplus_parallel_for parallel_for_ = nullptr;
  void *pool_ = nullptr;
  std::atomic<Workers *> workers_{nullptr};
};

} // namespace flashplus
