// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cpu/thread_pool.h"

#include "tests/soak.h"

#include <chrono>
#include <doctest/doctest.h>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace flashplus;

namespace {

/// Every item once, worker numbers in range, and no two calls of one worker at a time.
bool covers(ThreadPool &pool, int64_t items) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
  std::vector<std::atomic<int>> inside(static_cast<size_t>(pool.threads()));
  std::atomic<bool> good{true};
  pool.run(items, [&](int worker, int64_t item) {
    if (worker < 0 || worker >= pool.threads() || item < 0 || item >= items) {
      good = false;
      return;
    }
    if (inside[size_t(worker)].fetch_add(1) != 0)
      good = false;
    ++seen[size_t(item)];
    inside[size_t(worker)].fetch_sub(1);
  });
  for (auto &count : seen)
    good = good && count == 1;
  return good;
}

/// Threads by their numbers. A joined thread stays listed for a moment, so a test asks which are new, not how
/// many are there.
std::set<std::string> threadsOfProcess() {
  std::set<std::string> threads;
  for (const auto &task : std::filesystem::directory_iterator("/proc/self/task"))
    threads.insert(task.path().filename());
  return threads;
}

int newThreads(const std::set<std::string> &before) {
  int count = 0;
  for (const std::string &thread : threadsOfProcess())
    count += !before.contains(thread);
  return count;
}

} // namespace

TEST_CASE("a loop covers every item once, whatever its length") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t items : {0, 1, 2, 3, 7, 8, 9, 1000, 20000})
      CHECK(covers(pool, items));
    // a worker that is late for one loop must not run the next one twice
    for (int repeat = 0; repeat < test::soakCount(300); ++repeat)
      CHECK(covers(pool, 3));
  }
  CHECK(ThreadPool(0).threads() == 1);
}

TEST_CASE("a pool has the threads that were asked for, and only when they are of use") {
  const auto before = threadsOfProcess();
  ThreadPool pool(5);
  CHECK(newThreads(before) == 0);
  pool.run(1, [](int, int64_t) {});
  CHECK(newThreads(before) == 0);
  pool.run(2, [](int, int64_t) {});
  CHECK(newThreads(before) == 4);
  pool.run(2, [](int, int64_t) {});
  CHECK(newThreads(before) == 4);
}

TEST_CASE("loops run at the same time when there are workers") {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.run(2, [&](int, int64_t) {
    ++arrived;
    while (arrived < 2) // hangs if one thread runs both
      std::this_thread::yield();
  });
  CHECK(arrived == 2);
}

TEST_CASE("workers hear of a loop while they wait for it awake, asleep, and on the way there") {
  for (int threads : {2, 4}) { // those beyond the processors sleep at once
    ThreadPool pool(threads);
    for (int gap : {0, 10, 40, 45, 50, 55, 60, 80, 500})
      for (int repeat = 0; repeat < test::soakCount(40); ++repeat) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(gap);
        while (std::chrono::steady_clock::now() < until)
          std::this_thread::yield();
        CHECK(covers(pool, 5)); // hangs if one of them is not told
      }
    // The other way round: the caller waits for a late worker, and sleeps when that takes longer.
    for (int late : {0, 40, 50, 60, 2000}) {
      std::atomic<int> done{0};
      pool.run(4, [&](int worker, int64_t) {
        if (worker != 0)
          std::this_thread::sleep_for(std::chrono::microseconds(late));
        ++done;
      });
      CHECK(done == 4);
    }
  }
}

TEST_CASE("a loop inside a loop finishes") {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  pool.run(4, [&](int, int64_t i) {
    pool.run(5, [&](int, int64_t j) { sum += i * 10 + j; });
  });
  CHECK(sum.load() == 340);
  // A loop of another pool is no loop of this one.
  ThreadPool other(2);
  pool.run(3, [&](int, int64_t) { CHECK(covers(other, 10)); });
  CHECK(covers(pool, 100));
}

TEST_CASE("many threads share a pool") {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat)
        good += covers(pool, 50);
    });
  for (std::thread &t : callers)
    t.join();
  CHECK(good == 160);
}

TEST_CASE("the embedder's parallel_for runs the loops") {
  struct Embedder {
    std::atomic<int> calls{0};
    int64_t count = 0;
  } embedder;
  // Runs strands backwards and on threads of its own.
  auto parallel_for = [](void *pool, int64_t count, void (*body)(void *, int64_t), void *context) {
    auto &e = *static_cast<Embedder *>(pool);
    ++e.calls;
    e.count = count;
    std::vector<std::thread> threads;
    for (int64_t i = count; i-- > 0;)
      threads.emplace_back(body, context, i);
    for (std::thread &t : threads)
      t.join();
  };
  const auto before = threadsOfProcess();
  ThreadPool pool(parallel_for, &embedder, 3);
  CHECK(pool.threads() == 3);
  CHECK(covers(pool, 100));
  CHECK(embedder.calls == 1);
  CHECK(embedder.count == 3);
  CHECK(covers(pool, 2));
  CHECK(embedder.count == 2); // no strand without an item
  CHECK(covers(pool, 0));
  CHECK(embedder.calls == 2);
  CHECK(newThreads(before) == 0);
}

#ifndef FLASHPLUS_TSAN // which does not follow fork() from a process with threads
TEST_CASE("a child of fork() makes workers of its own, also when a loop ran in the parent") {
  ThreadPool pool(3);
  CHECK(covers(pool, 100));
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop)
      covers(pool, 20);
  });
  for (int repeat = 0; repeat < test::soakCount(20); ++repeat) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(20); // a deadlock ends in a signal, not in a hanging test
      const bool good = covers(pool, 100) && covers(pool, 100);
      pool.~ThreadPool(); // must not wait for the parent's threads
      _exit(good ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  stop = true;
  busy.join();
  CHECK(covers(pool, 100));
}
#endif
