// SPDX-License-Identifier: BSD-3-Clause
// flashplus_drop_idle_kernels: what goes, what stays, and that nobody launches what is gone.
#include "flashplus/flashplus.hpp"
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

struct Context {
  explicit Context(const std::string &cache, flashplus_context_options o = {}) {
    o.struct_size = sizeof o;
    o.cache_dir = cache.c_str();
    o.compiler_path = kFakeCompiler;
    o.num_threads = 1;
    REQUIRE_MESSAGE(flashplus_context_create(&o, &handle) == FLASHPLUS_OK, flashplus_last_error());
  }
  ~Context() { flashplus_context_destroy(handle); }
  Context(const Context &) = delete;
  int64_t drop() const {
    int64_t dropped = -1;
    CHECK_MESSAGE(flashplus_drop_idle_kernels(handle, &dropped) == FLASHPLUS_OK, flashplus_last_error());
    return dropped;
  }
  void forward(Problem &p) const {
    CHECK_MESSAGE(flashplus_forward(handle, &p.args, nullptr) == FLASHPLUS_OK, flashplus_last_error());
  }
  flashplus_counters counters() const {
    flashplus_counters c = {};
    c.struct_size = sizeof c;
    CHECK(flashplus_get_counters(handle, &c) == FLASHPLUS_OK);
    return c;
  }
  flashplus_context *handle = nullptr;
};

void skipped() { MESSAGE("skipped: the system has no membarrier(2)"); }

} // namespace

TEST_CASE("kernels that were not launched since the last call go, and come back from disk") {
  if (!flashplus::canWaitForCalls())
    return skipped();
  TemporaryFolder folder;
  Context context(folder.path("cache"));
  Problem a(1, 8, 8, 1, 1, 32), b(1, 8, 8, 1, 1, 64);
  context.forward(a);
  context.forward(b);
  const int64_t bytes = context.counters().resident_bytes;
  CHECK(context.drop() == 0); // just made
  context.forward(a);
  CHECK(context.drop() == 1);
  CHECK(context.counters().resident_kernels == 1);
  CHECK(context.counters().resident_bytes < bytes);
  int64_t count = 0;
  b.args.tile_counter = &count;
  context.forward(b);
  CHECK(count == 1);
  CHECK(context.counters().disk_hits == 1);
  CHECK(context.counters().compiles == 2);
  CHECK(context.counters().resident_kernels == 2);
  context.forward(a);
  CHECK(context.counters().disk_hits == 1); // it stayed, though plans were looked up anew
  CHECK(context.drop() == 0);
  CHECK(context.drop() == 2);
  CHECK(context.counters().resident_kernels == 0);
  CHECK(context.counters().resident_bytes == 0);
  CHECK(flashplus_drop_idle_kernels(context.handle, nullptr) == FLASHPLUS_OK);
  CHECK(flashplus_drop_idle_kernels(nullptr, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
}

TEST_CASE("what a plan has, and what could not be had again, stays") {
  if (!flashplus::canWaitForCalls())
    return skipped();
  Problem a(1, 8, 8, 1, 1, 32);
  SUBCASE("a plan's") {
    Context context("");
    flashplus_plan *plan = nullptr;
    REQUIRE(flashplus_plan_create(context.handle, &a.args, &plan) == FLASHPLUS_OK);
    CHECK(context.drop() == 0);
    CHECK(context.drop() == 0);
    int64_t count = 0;
    a.args.tile_counter = &count;
    CHECK(flashplus_plan_run(plan, &a.args, nullptr, 0, nullptr) == FLASHPLUS_OK);
    CHECK(count == 1);
    flashplus_plan_destroy(plan);
    CHECK(context.drop() == 0); // it was launched
    CHECK(context.drop() == 1);
  }
  SUBCASE("in memory alone, once nothing may be compiled") {
    Context context("");
    context.forward(a);
    REQUIRE(flashplus_mark_ready(context.handle, FLASHPLUS_LATE_ERROR) == FLASHPLUS_OK);
    CHECK(context.drop() == 0);
    CHECK(context.drop() == 0);
    context.forward(a);
    CHECK(flashplus_mark_ready(context.handle, FLASHPLUS_LATE_ALLOW) == FLASHPLUS_OK);
    CHECK(context.drop() == 0);
    CHECK(context.drop() == 1);
  }
  SUBCASE("on disk, it goes all the same") {
    TemporaryFolder folder;
    Context context(folder.path("cache"));
    context.forward(a);
    REQUIRE(flashplus_mark_ready(context.handle, FLASHPLUS_LATE_ERROR) == FLASHPLUS_OK);
    CHECK(context.drop() == 0);
    CHECK(context.drop() == 1);
    context.forward(a);
    CHECK(context.counters().late_compiles == 0);
  }
}

TEST_CASE("in a callback of a launch dropping is refused, which would wait for itself") {
  if (!flashplus::canWaitForCalls())
    return skipped();
  struct Seen {
    flashplus_context *context = nullptr;
    std::string message;
  } seen;
  flashplus_context_options o = {};
  o.listener_context = &seen;
  o.listener = [](void *self, const flashplus_event *) {
    auto &s = *static_cast<Seen *>(self);
    if (flashplus_drop_idle_kernels(s.context, nullptr) == FLASHPLUS_INVALID_ARGUMENT)
      s.message = flashplus_last_error();
  };
  Context context("", o);
  seen.context = context.handle;
  Problem a(1, 8, 8, 1, 1, 32);
  context.forward(a);
  CHECK(seen.message.find("callback of another call") != std::string::npos);
}

TEST_CASE("launches while others drop: each finds its kernel, and none one that is gone") {
  if (!flashplus::canWaitForCalls())
    return skipped();
  TemporaryFolder folder;
  Context context(folder.path("cache"));
  std::atomic<bool> stop{false};
  std::atomic<int64_t> runs{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number)
    threads.emplace_back([&, number] {
      // Head dims in turn, so that there is always one that is idle.
      std::vector<std::unique_ptr<Problem>> problems;
      for (int dim : {16, 32, 48, 64})
        problems.push_back(std::make_unique<Problem>(1, 8, 8, 1, 1, dim));
      for (int64_t i = number; !stop; ++i) {
        flashplus_forward_args &args = problems[size_t(i / 50 % 4)]->args;
        int64_t count = 0;
        args.tile_counter = &count;
        if (flashplus_forward(context.handle, &args, nullptr) != FLASHPLUS_OK || count != 1)
          ++wrong;
        ++runs;
      }
    });
  int64_t dropped = 0, rounds = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(soakCount(20'000));
  while (std::chrono::steady_clock::now() < end || dropped < 20) {
    dropped += context.drop();
    ++rounds;
  }
  stop = true;
  for (std::thread &t : threads)
    t.join();
  CHECK(wrong == 0);
  MESSAGE(runs.load() << " launches, " << dropped << " kernels dropped in " << rounds << " rounds");
}

#ifndef FLASHPLUS_TSAN // which does not follow threads into the child of a fork

TEST_CASE("the child of a fork waits for none of its parent's threads") {
  if (!flashplus::canWaitForCalls())
    return skipped();
  std::atomic<bool> inside{false}, go{false};
  std::thread other([&] {
    const flashplus::CallInFlight call;
    inside = true;
    while (!go)
      std::this_thread::yield();
  });
  while (!inside)
    std::this_thread::yield();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    flashplus::waitForCallsInFlight();
    const flashplus::CallInFlight call;
    _exit(flashplus::isCallInFlight() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  go = true;
  other.join();
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

#endif
