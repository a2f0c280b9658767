// SPDX-License-Identifier: BSD-3-Clause
// A child of fork() finds locks free and what they guard whole, whatever the parent's threads do.
#include "cache/fork.h"
#include "tests/soak.h"
#include "tests/unit/cache/children.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <atomic>
#include <shared_mutex>
#include <thread>

using namespace flashplus;
using namespace flashplus::test;
using namespace std::chrono_literals;

#ifndef FLASHPLUS_TSAN // which does not follow fork() from a process with threads

TEST_CASE("a mutex that another thread keeps taking is free in every child, and its value whole") {
  ForkSafe<std::mutex> mutex;
  ForkSafe<std::shared_mutex> shared;
  int64_t first = 0, second = 0; // equal whenever nobody has the mutex
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      std::lock_guard lock(mutex);
      std::unique_lock also(shared);
      ++first;
      for (int i = 0; i < 200; ++i)
        asm volatile("");
      ++second;
    }
  });
  for (int i = 0; i < soakCount(1000); ++i)
    REQUIRE(waitAtMost(startChild([&] {
                         std::lock_guard lock(mutex);
                         std::shared_lock also(shared);
                         return first == second ? 0 : 1;
                       }),
                       10s) == 0);
  stop = true;
  busy.join();
}

TEST_CASE("a fork waits for work that must not be cut in two, and work begins again after it") {
  std::atomic<int> inside{0};
  std::atomic<bool> stop{false};
  int64_t first = 0, second = 0;
  std::thread busy([&] {
    while (!stop) {
      const ForkWaits whole;
      const ForkWaits nested;
      ++first;
      inside = 1;
      std::this_thread::sleep_for(2ms);
      ++second;
    }
  });
  while (!inside)
    std::this_thread::yield();
  for (int i = 0; i < 20; ++i)
    REQUIRE(waitAtMost(startChild([&] {
                         if (first != second || ForkWaits::isCutInTwo())
                           return 1;
                         const ForkWaits mine;
                         return 0;
                       }),
                       10s) == 0);
  const int64_t before = second;
  while (second < before + 2) // hangs if a fork left the gate shut
    std::this_thread::sleep_for(1ms);
  stop = true;
  busy.join();
}

TEST_CASE("who forks inside such work does not wait for itself") {
  const ForkWaits whole;
  CHECK(waitAtMost(startChild([] {
                     const ForkWaits nested;
                     return ForkWaits::isCutInTwo() ? 1 : 0;
                   }),
                   10s) == 0);
}

namespace {

/// Forks wait so long in a scope.
struct Impatient {
  explicit Impatient(std::chrono::milliseconds most) { ForkWaits::setMostForTests(most); }
  ~Impatient() { ForkWaits::setMostForTests(std::chrono::seconds(ForkWaits::kMostSeconds)); }
};

} // namespace

TEST_CASE("work that does not end is cut in two after a while, and the child knows") {
  const Impatient impatient(50ms);
  std::atomic<bool> stop{false};
  std::atomic<bool> inside{false};
  std::thread busy([&] {
    const ForkWaits whole;
    inside = true;
    while (!stop)
      std::this_thread::sleep_for(1ms);
  });
  while (!inside)
    std::this_thread::yield();
  CHECK(waitAtMost(startChild([] {
                     const ForkWaits mine;
                     return ForkWaits::isCutInTwo() && !isForkBroken() ? 0 : 1;
                   }),
                   60s) == 0);
  stop = true;
  busy.join();
}

TEST_CASE("a lock that could not be held is free in the child, which knows that what it guards may be cut") {
  const Impatient impatient(50ms);
  ForkSafe<std::mutex> mutex, other;
  std::atomic<bool> stop{false}, inside{false};
  std::thread busy([&] {
    std::lock_guard lock(mutex);
    inside = true;
    while (!stop)
      std::this_thread::sleep_for(1ms);
  });
  while (!inside)
    std::this_thread::yield();
  CHECK(waitAtMost(startChild([&] {
                     std::lock_guard lock(mutex);
                     std::lock_guard also(other);
                     return isForkBroken() ? 0 : 1;
                   }),
                   10s) == 0);
  CHECK(!isForkBroken());
  { std::lock_guard lock(other); } // hangs if the parent did not let go of it
  stop = true;
  busy.join();
  CHECK(waitAtMost(startChild([] { return isForkBroken() ? 1 : 0; }), 10s) == 0);
}

TEST_CASE("a lock may be made and destroyed while another one is held, whatever forks meanwhile") {
  ForkSafe<std::mutex> mutex;
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      std::lock_guard lock(mutex);
      for (int i = 0; i < 100; ++i)
        ForkSafe<std::mutex>();
    }
  });
  for (int i = 0; i < soakCount(200); ++i) // one that waits for the other takes 10 s, and breaks the child
    REQUIRE(waitAtMost(startChild([&] {
                         std::lock_guard lock(mutex);
                         return isForkBroken() ? 1 : 0;
                       }),
                       10s) == 0);
  stop = true;
  busy.join();
}

TEST_CASE("a disk that does not answer keeps no lock") {
  const Impatient impatient(50ms);
  static std::atomic<bool> stands{false}, asked{false};
  FileOps ops = plainOps();
  ops.fstat = [](int fd, struct stat *info) {
    while (stands) {
      asked = true;
      std::this_thread::sleep_for(1ms);
    }
    return plainOps().fstat(fd, info);
  };
  TemporaryFolder folder;
  LoggedStore store(folder.path, ops);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  stands = true;
  std::thread waits([&] { (void)store->read(sampleKey()); });
  while (!asked)
    std::this_thread::yield();
  CHECK(waitAtMost(startChild([&] {
                     stands = false; // this process's
                     return !isForkBroken() && store->read(sampleKey()).isHit() ? 0 : 1;
                   }),
                   10s) == 0);
  stands = false;
  waits.join();
}

#endif
