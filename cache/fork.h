// SPDX-License-Identifier: BSD-3-Clause
// What keeps fork() from leaving a child with locks whose holders it does not have. A fork takes every lock
// of this kind first, and lets go of them in parent and child; it waits for what must not be cut in two.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>

namespace flashplus {

/// Set in the child of a fork that could not hold a lock for ForkWaits::kMostSeconds: what another thread was
/// about to change is in whatever state, and nothing of this library may be used in that process.
inline std::atomic<bool> fork_broke_state{false};
inline bool isForkBroken() { return fork_broke_state.load(std::memory_order_relaxed); }

/// Something that a fork has to hold. Everything is called by the thread that forks; a class calls enlist()
/// last in its constructor and leave() first in its destructor, which may be while other things of this kind
/// are held.
class ForkGuarded {
public:
  ForkGuarded(const ForkGuarded &) = delete;
  ForkGuarded &operator=(const ForkGuarded &) = delete;

protected:
  ForkGuarded() = default;
  ~ForkGuarded() = default;
  void enlist();
  void leave();

private:
  friend struct ForkList;
  virtual bool hold() = 0;             ///< Before a fork. False: another thread has it; asked again.
  virtual void letGo() = 0;            ///< In the parent, and when others could not be held.
  virtual void inChild(bool held) = 0; ///< `held` is false when its holder did not let go of it in time.

  ForkGuarded *previous_ = nullptr, *next_ = nullptr;
  bool held_ = false;
};

/// A std::mutex or std::shared_mutex that is free in the child of a fork, with what it guards whole, unless
/// isForkBroken(). Not for one that is held for long (while a disk, a driver or a loader is waited for), nor
/// while a caller's function is called. One that all share is global or MadeOnce (spec/made_once.h): the
/// child of a fork that comes while a static in a function is made waits for ever.
template <class Mutex> class ForkSafe final : public Mutex, private ForkGuarded {
public:
  ForkSafe() { enlist(); }
  ~ForkSafe() { leave(); }

private:
  bool hold() override { return this->try_lock(); }
  void letGo() override { this->unlock(); }
  // A new one, not unlocked: the parent's threads that wait for it are counted in it.
  void inChild(bool) override { new (static_cast<Mutex *>(this)) Mutex; }
};

/// While a thread has one, a fork in another waits, up to kMostSeconds: for work with locks and state that
/// are not ours, such as LLVM's. No caller's function is called meanwhile.
class ForkWaits {
public:
  static constexpr int kMostSeconds = 10;
  static void setMostForTests(std::chrono::milliseconds most); ///< In place of kMostSeconds.
  ForkWaits();
  ~ForkWaits();
  ForkWaits(const ForkWaits &) = delete;
  ForkWaits &operator=(const ForkWaits &) = delete;

  /// In a process that was forked (or whose parent was) without waiting any longer: what such work uses is
  /// in no state to be used.
  static bool isCutInTwo();
};

} // namespace flashplus
