// SPDX-License-Identifier: BSD-3-Clause
// Which threads are inside a launch, so that what launches read without a lock can be freed. A launch pays
// two plain stores for it; who frees pays for the rest (membarrier(2)).
#pragma once

#include <atomic>
#include <cstdint>

namespace flashplus {

/// While a thread has one, what it found before it was cleared stays. May be nested.
class CallInFlight {
public:
  CallInFlight() : slot_(mine()) {
    if (slot_.depth++ == 0) {
      slot_.sequence.store(slot_.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst); // waitForCallsInFlight() has the other half
    }
  }
  ~CallInFlight() {
    if (--slot_.depth == 0)
      slot_.sequence.store(slot_.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  CallInFlight(const CallInFlight &) = delete;
  CallInFlight &operator=(const CallInFlight &) = delete;

  static constexpr int kSharedNumber = 31; ///< Of all threads beyond that many.
  struct alignas(64) Slot {                // a line of its own, which no other thread writes to
    std::atomic<uint64_t> sequence{0};     ///< Odd: inside. Written by its thread alone.
    int depth = 0;                         ///< Its thread's.
    int number = kSharedNumber;            ///< No other thread's that is there, but for this one.
  };
  /// Of the thread, for what each thread has of its own.
  int number() const { return slot_.number; }

private:
  static Slot &mine() {
    thread_local Slot *slot = nullptr;
    return slot ? *slot : *(slot = add(&slot));
  }
  static Slot *add(Slot **where);

  Slot &slot_;
};

/// Whether this thread is in one.
bool isCallInFlight();

/// Whether waitForCallsInFlight() can be had of this system.
bool canWaitForCalls();

/// Returns when each call that was in flight when it was called is over: after what they may find was
/// cleared, nobody has it any more. Never inside one.
void waitForCallsInFlight();

} // namespace flashplus
