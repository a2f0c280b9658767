// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/thread_pool.h"

#include "runtime/api/not_cancelled.h"
#include "runtime/devices/cpu/floating_point.h"
#include "runtime/devices/cpu/processors.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace flashplus {

namespace {

/// How one thread waits: at first awake, for about as long as a sleeping thread takes to wake, which is a
/// good part of a decode step. In a process that runs one loop after the other nobody sleeps then. It costs
/// where others want the processor: the scheduler makes a thread wait that has used its share, for
/// milliseconds, while it prefers one that has slept. So a thread that has had to leave its processor sleeps
/// at once for some time, and until it has not had to.
class Patience {
public:
  /// Whether `ready` turned true; otherwise it is time to sleep.
  template <class Ready> bool wait(Ready ready) {
    if (ready())
      return true;
    if (asleep_ > 0) {
      --asleep_;
      return false;
    }
    const long left = timesLeft();
    if (left != left_) {
      left_ = left;
      asleep_ = 64;
      return false;
    }
    using Clock = std::chrono::steady_clock;
    constexpr auto kAwake = std::chrono::microseconds(50);
    const auto start = Clock::now();
    do {
      for (int i = 0; i < 16; ++i) {
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
        if (ready())
          return true;
      }
    } while (Clock::now() - start < kAwake);
    return false;
  }

private:
  /// How often the scheduler has given the thread's processor to another.
  static long timesLeft() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
  }

  int asleep_ = 0; ///< Waits to come that are asleep.
  long left_ = 0;
};

/// Of a thread that asks for loops, whatever the pool.
thread_local Patience caller;

} // namespace

/// Threads that wait for a loop. Items are handed out one at a time from a counter: attention's items are
/// large and uneven (a causal mask), so that balance matters more than the cost of an increment.
struct ThreadPool::Workers {
  explicit Workers(int count)
      : owner(getpid()), count(count), enough_processors(count <= usableProcessors()) {}

  ~Workers() {
    {
      std::lock_guard lock(mutex);
      stop = true;
      generation.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
    for (std::thread &t : threads)
      t.join();
  }

  void run(int64_t loop_items, const LoopBody &loop) {
    std::lock_guard turn(one_loop);
    start();
    body = &loop;
    items = loop_items;
    next.store(0, std::memory_order_relaxed);
    busy.store(int(threads.size()), std::memory_order_relaxed);
    bool asleep;
    {
      std::lock_guard lock(mutex);
      generation.fetch_add(1, std::memory_order_release);
      asleep = sleepers != 0;
    }
    if (asleep)
      wake.notify_all();
    drain(0);
    auto finished = [this] { return busy.load(std::memory_order_acquire) == 0; };
    if (!enough_processors || !caller.wait(finished)) {
      std::unique_lock lock(mutex);
      done.wait(lock, finished);
    }
    body = nullptr;
  }

  /// The threads, on the first loop. Where the system gives fewer, the loop finishes all the same.
  void start() {
    if (started)
      return;
    started = true;
    try {
      threads.reserve(size_t(count)); // so that no thread is left without an owner by a failed push_back
      for (int i = 1; i < count; ++i)
        threads.emplace_back([this, i] { work(i); });
    } catch (const std::exception &) {
    }
  }

  void drain(int worker) {
    const StandardFloatingPoint standard; // a thread starts with its creator's
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;)
      (*body)(worker, i);
  }

  void work(int worker) {
    inside = this;
    Patience patience;
    for (uint64_t seen = 0;;) {
      auto called = [&] { return generation.load(std::memory_order_acquire) != seen; };
      if (!enough_processors || !patience.wait(called)) {
        std::unique_lock lock(mutex);
        ++sleepers;
        wake.wait(lock, called);
        --sleepers;
      }
      if (stop)
        return;
      ++seen; // the next loop starts when every thread has done with this one
      drain(worker);
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        // Between its look at `busy` and its sleep the loop's thread holds the lock.
        std::lock_guard lock(mutex);
        done.notify_one();
      }
    }
  }

  const pid_t owner;
  const int count;
  const bool enough_processors; ///< One for every thread; else they never wait awake.
  std::mutex one_loop; ///< Held for the length of a loop; guards `threads` and `started`.
  std::vector<std::thread> threads;
  bool started = false;
  std::mutex mutex; ///< Held for every change of what a sleeping thread waits for, but for `busy`.
  std::condition_variable wake, done;
  int sleepers = 0; ///< Threads in `wake`; guarded by `mutex`.

  // The loop: written before `generation` changes, read after; no thread looks at it once `busy` is 0.
  const LoopBody *body = nullptr;
  int64_t items = 0;
  bool stop = false;
  std::atomic<uint64_t> generation{0}; ///< Counts the loops.
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int> busy{0}; ///< Threads that have not done with the loop.

  static thread_local const Workers *inside; ///< Whose loop this thread is running.
};

thread_local const ThreadPool::Workers *ThreadPool::Workers::inside = nullptr;

ThreadPool::ThreadPool(int threads) : threads_(std::max(threads, 1)) {}

ThreadPool::ThreadPool(flashplus_parallel_for parallel_for, void *pool, int threads)
    : threads_(std::max(threads, 1)), parallel_for_(parallel_for), pool_(pool) {}

ThreadPool::~ThreadPool() {
  Workers *workers = workers_.load();
  // else the threads are the parent's, and there is nothing to join here
  if (workers && workers->owner == getpid())
    delete workers;
}

ThreadPool::Workers &ThreadPool::workers() {
  // After fork() the child has the object but none of its threads, and its locks may be held by them: it is
  // abandoned, not destroyed. For the same reason no lock is taken here.
  const pid_t self = getpid();
  Workers *current = workers_.load(std::memory_order_acquire);
  while (!current || current->owner != self) {
    auto fresh = std::make_unique<Workers>(threads_); // starts no thread yet
    if (workers_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel))
      return *fresh.release();
  }
  return *current;
}

void ThreadPool::run(int64_t items, LoopBody body) {
  if (items <= 0)
    return;
  if (parallel_for_) {
    const NotCancelled whole;
    // One strand a worker number, so that scratch is never shared, whatever threads the embedder runs them
    // on.
    struct Shared {
      const LoopBody &body;
      int64_t items;
      std::atomic<int64_t> next{0};
    } shared{body, items};
    parallel_for_(
        pool_, std::min<int64_t>(threads_, items),
        [](void *context, int64_t worker) {
          const StandardFloatingPoint standard; // of the embedder's thread
          auto &s = *static_cast<Shared *>(context);
          for (int64_t i; (i = s.next.fetch_add(1, std::memory_order_relaxed)) < s.items;)
            s.body(int(worker), i);
        },
        &shared);
    return;
  }
  auto alone = [&] {
    for (int64_t i = 0; i < items; ++i)
      body(0, i);
  };
  if (threads_ == 1 || items == 1)
    return alone();
  const NotCancelled whole;
  Workers &mine = workers();
  // A loop inside a loop has no worker to spare, and would wait for itself.
  if (Workers::inside == &mine)
    return alone();
  struct Inside {
    explicit Inside(const Workers *now) { Workers::inside = now; }
    ~Inside() { Workers::inside = before; }
    const Workers *before = Workers::inside;
  } inside(&mine);
  mine.run(items, body);
}

} // namespace flashplus
