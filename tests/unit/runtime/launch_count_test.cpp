// SPDX-License-Identifier: BSD-3-Clause
// Counts that launches of many threads add to: none is lost, whoever has the numbers.
#include "runtime/kernels/launch_count.h"

#include <atomic>
#include <doctest/doctest.h>
#include <set>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using flashplus::CallInFlight;
using flashplus::LaunchCount;

namespace {

/// Calls `body(i)` in `count` threads that are all there at once.
template <class Body> void atOnce(int count, Body body) {
  std::atomic<int> there{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      { const CallInFlight number_of_this_thread; }
      ++there;
      while (there < count)
        std::this_thread::yield();
      body(i);
    });
  for (std::thread &t : threads)
    t.join();
}

} // namespace

TEST_CASE("a count has what more threads add than there are numbers, and what those did that are gone") {
  LaunchCount count;
  constexpr int kThreads = CallInFlight::kSharedNumber + 9, kTimes = 2000;
  for (int round = 1; round <= 3; ++round) {
    std::vector<int> numbers(kThreads);
    atOnce(kThreads, [&](int i) {
      for (int time = 0; time < kTimes; ++time) {
        const CallInFlight here;
        count.add(2, here);
        numbers[size_t(i)] = here.number();
      }
    });
    CHECK(int64_t(count) == int64_t(round) * kThreads * kTimes * 2);
    // No two have one number, but for the last.
    std::multiset<int> taken(numbers.begin(), numbers.end());
    for (int number = 0; number < CallInFlight::kSharedNumber; ++number)
      CHECK(taken.count(number) <= 1);
    CHECK(taken.count(CallInFlight::kSharedNumber) >= 9); // this thread may have one, too
    CHECK(*taken.begin() >= 0);
    CHECK(*taken.rbegin() == CallInFlight::kSharedNumber);
  }
  count += 5;
  CHECK(int64_t(count) == 3 * int64_t(kThreads) * kTimes * 2 + 5);
}

#ifndef FLASHPLUS_TSAN // which starts no thread in the child of a process with threads
TEST_CASE("numbers of threads that a fork leaves behind are free in the child") {
  int free_ones = 0;
  std::atomic<bool> is_over{false};
  atOnce(CallInFlight::kSharedNumber + 9, [&](int i) {
    while (i != 0 && !is_over) // a thread that ends lets go of its number
      std::this_thread::yield();
    if (i != 0)
      return;
    const pid_t child = ::fork();
    if (child == 0) {
      int number = CallInFlight::kSharedNumber;
      std::thread([&] {
        const CallInFlight here;
        number = here.number();
      }).join();
      ::_exit(number < CallInFlight::kSharedNumber ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    free_ones += status == 0;
    is_over = true;
  });
  CHECK(free_ones == 1);
}
#endif
