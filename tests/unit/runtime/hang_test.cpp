// SPDX-License-Identifier: BSD-3-Clause
// Many threads with many specs, forks at any moment of compiling, planning and launching: nobody waits for
// ever. A run makes a twentieth of the forks, and a soak all: tests/soak.h.
#include "flashplus/flashplus.h"
#include "runtime/kernels/calls_in_flight.h"
#include "tests/soak.h"
#include "tests/tools/temporary.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <atomic>
#include <chrono>
#include <doctest/doctest.h>
#include <memory>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace flashplus::test;

namespace {

constexpr int kThreads = 32, kSpecs = 50;
constexpr unsigned kHangs = 60; ///< Seconds, of what takes milliseconds.

flashplus_context *contextIn(const std::string &cache) {
  flashplus_context_options o = {};
  o.struct_size = sizeof o;
  o.cache_dir = cache.c_str();
  o.compiler_path = kFakeCompiler;
  o.num_threads = 2;
  flashplus_context *context = nullptr;
  REQUIRE_MESSAGE(flashplus_context_create(&o, &context) == FLASHPLUS_OK, flashplus_last_error());
  return context;
}

/// A call of spec `number`, every second one also planned.
bool callOf(flashplus_context *context, int number) {
  // 17 to 24 are those that the fake compiler refuses, or worse
  Problem p(1, 8, 8, 1, 1, 25 + number);
  if (number % 2) {
    flashplus_plan *plan = nullptr;
    if (flashplus_plan_create(context, &p.args, &plan) != FLASHPLUS_OK)
      return false;
    flashplus_plan_destroy(plan);
  }
  return flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK;
}

/// Ends this process, with a signal, if what it is about to do does not end.
struct Deadline {
  Deadline() { ::alarm(kHangs); }
  ~Deadline() { ::alarm(0); }
};

} // namespace

TEST_CASE("threads with many specs end, and compile each kernel once") {
  for (int round = 0; round < soakCount(20); ++round) {
    const Deadline deadline;
    TemporaryFolder folder;
    flashplus_context *context = contextIn(folder.path("cache"));
    std::atomic<int> failed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < kSpecs; ++i)
          failed += !callOf(context, (t * 7 + i) % kSpecs);
      });
    for (std::thread &t : threads)
      t.join();
    CHECK(failed == 0);
    flashplus_counters counters = {};
    counters.struct_size = sizeof counters;
    REQUIRE(flashplus_get_counters(context, &counters) == FLASHPLUS_OK);
    CHECK(counters.compiles == kSpecs);
    flashplus_context_destroy(context);
  }
}

#ifndef FLASHPLUS_TSAN // which does not follow threads into the child of a fork

TEST_CASE("a child that is forked while others compile, plan, launch and drop runs, and ends") {
  const int forks = soakCount(1000);
  int done = 0, hung = 0, wrong = 0;
  while (done < forks) {
    TemporaryFolder folder; // so that there is always something to compile
    flashplus_context *context = contextIn(folder.path("cache"));
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; !stop; ++i) {
          (void)callOf(context, (t * 13 + i) % kSpecs);
          if (t == 0 && flashplus::canWaitForCalls())
            (void)flashplus_drop_idle_kernels(context, nullptr);
        }
      });
    for (int i = 0; i < 25 && done < forks; ++i, ++done) {
      std::this_thread::sleep_for(std::chrono::microseconds(137 * (i + 1)));
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(kHangs);
        bool good =
            callOf(context, i) && callOf(context, kSpecs + i); // one that others have, one that none has
        if (flashplus::canWaitForCalls())
          good &= flashplus_drop_idle_kernels(context, nullptr) == FLASHPLUS_OK;
        flashplus_context_destroy(context);
        ::_exit(good ? 0 : 1);
      }
      REQUIRE(child > 0);
      int status = 0;
      REQUIRE(::waitpid(child, &status, 0) == child);
      hung += WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
      wrong += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    stop = true;
    for (std::thread &t : threads)
      t.join();
    flashplus_context_destroy(context);
  }
  CHECK(hung == 0);
  CHECK(wrong == 0);
  MESSAGE(done << " forks");
}

#endif
