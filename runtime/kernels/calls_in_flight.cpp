// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/calls_in_flight.h"

#include "cache/fork.h"
#include "spec/made_once.h"

#include <algorithm>
#include <linux/membarrier.h>
#include <memory>
#include <mutex>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace flashplus {
namespace {

using Slot = CallInFlight::Slot;

thread_local Slot *slot_of_this_thread = nullptr;

/// The slots of all threads that ever launched and are there still. It lives as long as the process.
struct Slots final : private ForkGuarded {
  static Slots &get() {
    static constinit MadeOnce<Slots> slots;
    return slots.of();
  }
  Slots() { enlist(); }
  ~Slots() { leave(); } // one too many

  ForkSafe<std::mutex> mutex;
  std::vector<std::shared_ptr<Slot>> all;

  /// The least that no thread has; under the mutex, so that who had it before has written all that it will.
  int freeNumber() const {
    int number = 0;
    const auto taken = [&](const std::shared_ptr<Slot> &slot) { return slot->number == number; };
    while (number < CallInFlight::kSharedNumber && std::any_of(all.begin(), all.end(), taken))
      ++number;
    return number;
  }

private:
  bool hold() override { return true; }
  void letGo() override {}
  /// The child has one thread; the calls of the others end in the parent.
  void inChild(bool) override {
    std::erase_if(all, [](const std::shared_ptr<Slot> &slot) { return slot.get() != slot_of_this_thread; });
  }
};

/// Takes the slot away when its thread ends.
struct Leave {
  Slot **where = nullptr;
  ~Leave() {
    if (!where)
      return;
    Slots &slots = Slots::get();
    const std::lock_guard lock(slots.mutex);
    std::erase_if(slots.all, [&](const std::shared_ptr<Slot> &slot) { return slot.get() == *where; });
    *where = slot_of_this_thread = nullptr; // a later destructor of the thread may launch, and gets another
  }
};

int barrier(int command) { return int(::syscall(SYS_membarrier, command, 0, 0)); }

} // namespace

CallInFlight::Slot *CallInFlight::add(Slot **where) {
  auto slot = std::make_shared<Slot>();
  Slots &slots = Slots::get();
  {
    const std::lock_guard lock(slots.mutex);
    slot->number = slots.freeNumber();
    slots.all.push_back(slot);
  }
  thread_local Leave leave;
  leave.where = where;
  return slot_of_this_thread = slot.get();
}

bool isCallInFlight() { return slot_of_this_thread && slot_of_this_thread->depth > 0; }

bool canWaitForCalls() { return barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0; }

void waitForCallsInFlight() {
  // From here on each thread either has its slot's number seen below, or has not read what was cleared.
  barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  std::vector<std::pair<std::shared_ptr<Slot>, uint64_t>> inside;
  Slots &slots = Slots::get();
  {
    const std::lock_guard lock(slots.mutex);
    for (const std::shared_ptr<Slot> &slot : slots.all)
      if (const uint64_t sequence = slot->sequence.load(std::memory_order_acquire); sequence % 2)
        inside.emplace_back(slot, sequence);
  }
  for (const auto &[slot, sequence] : inside)
    for (long wait = 1000; slot->sequence.load(std::memory_order_acquire) == sequence;
         wait = std::min(2 * wait, 1'000'000l)) {
      const timespec moment{0, wait};
      ::nanosleep(&moment, nullptr);
    }
}

} // namespace flashplus
