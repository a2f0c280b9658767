// SPDX-License-Identifier: BSD-3-Clause
#include "cache/fork.h"

#include <pthread.h>
#include <time.h>

namespace flashplus {
namespace {

using Clock = std::chrono::steady_clock;

/// A fork that finds a lock taken asks again at once for so long, and then in naps.
constexpr auto kAwake = std::chrono::milliseconds(3);

thread_local int waits_of_this_thread = 0;

} // namespace

/// The list of all, and the work that a fork waits for. It lives as long as the process.
struct ForkList {
  static ForkList &get() {
    static ForkList *list = new ForkList;
    return *list;
  }

  // work ------------------------------------------------------------------------------------------------

  void enter() {
    if (waits_of_this_thread++)
      return; // inside its own, which a fork waits for: it must not wait for the fork
    std::unique_lock lock(work_mutex);
    work_changed.wait(lock, [&] { return forks == 0; });
    ++busy;
  }

  void exit() {
    if (--waits_of_this_thread)
      return;
    std::lock_guard lock(work_mutex);
    --busy;
    work_changed.notify_all();
  }

  /// Leaves work_mutex locked.
  void stopWork() {
    work_mutex.lock();
    std::unique_lock lock(work_mutex, std::adopt_lock);
    ++forks; // nobody begins until this is over
    const int own = waits_of_this_thread > 0;
    work_changed.wait_until(lock, Clock::now() + most.load(), [&] { return busy == own; });
    lock.release();
  }

  // locks -----------------------------------------------------------------------------------------------

  void letGoOfAll() {
    for (ForkGuarded *item = first; item; item = item->next_)
      if (item->held_) {
        item->held_ = false;
        item->letGo();
      }
  }

  bool tryAll() {
    for (ForkGuarded *item = first; item; item = item->next_)
      if (!(item->held_ = item->hold()))
        return false;
    return true;
  }

  /// Leaves `mutex` locked. Never waits for one while it holds others, so the order that threads take them in
  /// is theirs, nor while it holds the list, so that a thread may make or destroy one while it has another.
  void holdAll() {
    const auto start = Clock::now();
    for (;;) {
      mutex.lock();
      if (tryAll())
        return;
      const auto waited = Clock::now() - start;
      if (waited > most.load())
        break;
      letGoOfAll();
      mutex.unlock();
      if (waited < kAwake) // one that is nearly always taken is free for moments, which a sleeper misses
        continue;
      const timespec moment{0, 50'000};
      ::nanosleep(&moment, nullptr);
    }
    for (ForkGuarded *item = first; item; item = item->next_) // those that can be had
      item->held_ = item->held_ || item->hold();
  }

  // handlers --------------------------------------------------------------------------------------------

  void prepare() {
    stopWork();
    holdAll();
  }

  void parent() {
    letGoOfAll();
    mutex.unlock();
    --forks;
    work_changed.notify_all();
    work_mutex.unlock();
  }

  void child() {
    for (ForkGuarded *item = first; item; item = item->next_) {
      const bool held = item->held_;
      item->held_ = false;
      item->inChild(held);
      if (!held)
        fork_broke_state = true;
    }
    const int own = waits_of_this_thread > 0;
    if (busy != own)
      cut_in_two = true;
    busy = own;
    forks = 0;
    // The parent's threads wait for these.
    new (&mutex) std::mutex;
    new (&work_changed) std::condition_variable;
    new (&work_mutex) std::mutex;
  }

  ForkList() {
    ::pthread_atfork([] { get().prepare(); }, [] { get().parent(); }, [] { get().child(); });
  }

  std::mutex mutex; ///< Held through a fork; guards the list.
  ForkGuarded *first = nullptr;

  std::mutex work_mutex; ///< Held through a fork.
  std::condition_variable work_changed;
  int busy = 0;  ///< Threads in such work.
  int forks = 0; ///< Threads that want to fork.
  std::atomic<bool> cut_in_two{false};
  std::atomic<Clock::duration> most{std::chrono::seconds(ForkWaits::kMostSeconds)};
};

namespace {

/// Made when the library is loaded: a fork must not come while it is made.
[[maybe_unused]] const ForkList &kAtLoad = ForkList::get();

} // namespace

void ForkGuarded::enlist() {
  ForkList &list = ForkList::get();
  std::lock_guard lock(list.mutex);
  next_ = list.first;
  if (next_)
    next_->previous_ = this;
  list.first = this;
}

void ForkGuarded::leave() {
  ForkList &list = ForkList::get();
  std::lock_guard lock(list.mutex);
  (previous_ ? previous_->next_ : list.first) = next_;
  if (next_)
    next_->previous_ = previous_;
}

ForkWaits::ForkWaits() { ForkList::get().enter(); }
ForkWaits::~ForkWaits() { ForkList::get().exit(); }
bool ForkWaits::isCutInTwo() { return ForkList::get().cut_in_two; }
void ForkWaits::setMostForTests(std::chrono::milliseconds most) { ForkList::get().most = most; }

} // namespace flashplus
