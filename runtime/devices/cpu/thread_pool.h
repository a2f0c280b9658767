// SPDX-License-Identifier: BSD-3-Clause
// CPU workers: our own, or the embedder's through flashplus_parallel_for.
#pragma once

#include "flashplus/flashplus.h"

#include <atomic>
#include <type_traits>

namespace flashplus {

/// A borrowed callable (int worker, int64_t item): unlike std::function it never allocates. It must not
/// throw: its loop may be on several threads.
class LoopBody {
public:
  template <class Body>
    requires(!std::is_same_v<std::remove_cvref_t<Body>, LoopBody>)
  LoopBody(Body &&body)
      : context_(const_cast<void *>(static_cast<const void *>(&body))),
        call_([](void *context, int worker, int64_t item) {
          (*static_cast<std::remove_reference_t<Body> *>(context))(worker, item);
        }) {}
  void operator()(int worker, int64_t item) const { call_(context_, worker, item); }

private:
  void *context_;
  void (*call_)(void *context, int worker, int64_t item);
};

/// Runs loops over work items. Thread-safe: loops from several threads take turns on our own workers. A loop
/// inside a loop runs on the thread that asks for it.
class ThreadPool {
public:
  /// `threads` >= 1 counts the calling thread. No thread is started before the first loop that has use for
  /// one. A child of fork() starts with no workers and makes its own.
  explicit ThreadPool(int threads);
  ThreadPool(flashplus_parallel_for parallel_for, void *pool, int threads);
  ~ThreadPool();

  int threads() const { return threads_; }

  /// Calls body(worker, item) for every item of [0, items); worker is in [0, threads()) and no two calls of
  /// one loop with one worker number overlap. Returns when all are done.
  void run(int64_t items, LoopBody body);

private:
  struct Workers;
  Workers &workers();

  const int threads_;
  flashplus_parallel_for parallel_for_ = nullptr;
  void *pool_ = nullptr;
  std::atomic<Workers *> workers_{nullptr};
};

} // namespace flashplus
