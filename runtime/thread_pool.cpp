// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

namespace flashplus {

/// Threads that wait for a loop. Items are handed out one at a time from a counter: attention's items are large and
/// uneven (a causal mask), so that balance matters more than the cost of an increment.
struct ThreadPool::Workers {
  explicit Workers(int count) : owner(getpid()) {
    for (int i = 1; i < count; ++i) {
      try {
        threads.emplace_back([this, i] { work(i); });
      } catch (const std::system_error &) {
        break; // fewer workers; the loop finishes all the same
      }
    }
  }

  ~Workers() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread &t : threads)
      t.join();
  }

  void run(int64_t count, const std::function<void(int, int64_t)> &loop) {
    std::lock_guard turn(one_loop);
    {
      std::lock_guard lock(mutex);
      body = &loop;
      items = count;
      next.store(0, std::memory_order_relaxed);
      busy = int(threads.size());
      ++generation;
    }
    wake.notify_all();
    drain(0);
    std::unique_lock lock(mutex);
    done.wait(lock, [this] { return busy == 0; });
    body = nullptr;
  }

  void drain(int worker) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;)
      (*body)(worker, i);
  }

  void work(int worker) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stop || generation != seen; });
      if (stop)
        return;
      seen = generation;
      lock.unlock();
      drain(worker);
      lock.lock();
      if (--busy == 0)
        done.notify_one();
    }
  }

  const pid_t owner;
  std::vector<std::thread> threads;
  std::mutex one_loop, mutex;
  std::condition_variable wake, done;
  const std::function<void(int, int64_t)> *body = nullptr;
  int64_t items = 0;
  std::atomic<int64_t> next{0};
  int busy = 0;
  uint64_t generation = 0;
  bool stop = false;
};

ThreadPool::ThreadPool(int threads) : threads_(std::max(threads, 1)) {}

ThreadPool::ThreadPool(flashplus_parallel_for parallel_for, void *pool, int threads)
    : threads_(std::max(threads, 1)), parallel_for_(parallel_for), pool_(pool) {}

ThreadPool::~ThreadPool() {
  if (workers_ && workers_->owner != getpid())
    (void)workers_.release(); // the threads are the parent's; there is nothing to join here
}

ThreadPool::Workers &ThreadPool::workers() {
  static std::mutex starting;
  std::lock_guard lock(starting);
  // After fork() the child has the object but none of its threads, and its locks may be held by them: it is
  // abandoned, not destroyed.
  if (workers_ && workers_->owner != getpid())
    (void)workers_.release();
  if (!workers_)
    workers_ = std::make_unique<Workers>(threads_);
  return *workers_;
}

void ThreadPool::run(int64_t items, const std::function<void(int, int64_t)> &body) {
  if (items <= 0)
    return;
  if (parallel_for_) {
    // One strand a worker number, so that scratch is never shared, whatever threads the embedder runs them on.
    struct Shared {
      const std::function<void(int, int64_t)> &body;
      int64_t items;
      std::atomic<int64_t> next{0};
    } shared{body, items};
    parallel_for_(
        pool_, std::min<int64_t>(threads_, items),
        [](void *context, int64_t worker) {
          auto &s = *static_cast<Shared *>(context);
          for (int64_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.items;)
            s.body(int(worker), i);
        },
        &shared);
    return;
  }
  if (threads_ == 1 || items == 1) {
    for (int64_t i = 0; i < items; ++i)
      body(0, i);
    return;
  }
  workers().run(items, body);
}

} // namespace flashplus
