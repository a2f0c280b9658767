// SPDX-License-Identifier: BSD-3-Clause
// What a calling thread has set, and what is asked of it in the middle of a call: floating point,
// pthread_cancel.
#include "flashplus/flashplus.h"
#include "runtime/api/error.h"
#include "runtime/devices/cpu/thread_pool.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <atomic>
#include <cfenv>
#include <doctest/doctest.h>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

using namespace flashplus;
using namespace flashplus::test;

namespace {

#if defined(__x86_64__)

/// What of the state decides about results: all but the flags that were raised.
struct State {
  unsigned sse = 0;
  unsigned short x87 = 0;
  static State now() {
    State s;
    s.sse = __builtin_ia32_stmxcsr();
    asm volatile("fnstcw %0" : "=m"(s.x87));
    return s;
  }
  bool isStandard() const { return (sse & ~0x3fu) == 0x1f80 && x87 == 0x37f; }
};

/// As a program may have set it: towards plus infinity, denormals to zero, division by zero and invalid trap,
/// x87 with 53 bits.
struct Odd {
  Odd() {
    std::fesetround(FE_UPWARD);
    __builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() | 0x8040) & ~0x280u);
    unsigned short narrow = 0xa7f;
    asm volatile("fldcw %0" : : "m"(narrow));
    set = State::now();
  }
  ~Odd() { std::fesetenv(FE_DFL_ENV); }
  bool isLeft() const { return State::now().sse == set.sse && State::now().x87 == set.x87; }
  State set;
};

/// Raises flags, as kernels do.
double inexact() {
  volatile double three = 3;
  return 1 / three;
}

TEST_CASE("calls and loops run in the standard state of floating point, and leave the caller's") {
  REQUIRE(State::now().isStandard());
  std::atomic<int> standard{0}, other{0};
  const auto look = [&](int, int64_t) {
    ++(State::now().isStandard() ? standard : other);
    inexact();
    std::this_thread::yield();
  };
  SUBCASE("a call") {
    const Odd odd;
    for (const bool fails : {false, true})
      CHECK(guarded([&]() -> Status {
              look(0, 0);
              CHECK(std::to_string(0.1) + std::to_string(2.5) == "0.1000002.500000"); // libc's rounding, too
              return fails ? Status(StatusCode::Internal, "meant") : Status::ok();
            }) == (fails ? FLASHPLUS_INTERNAL : FLASHPLUS_OK));
    CHECK(guarded([&]() -> Status { throw 1; }) == FLASHPLUS_INTERNAL);
    CHECK(odd.isLeft());
    CHECK(standard == 2);
  }
  SUBCASE("workers that were started in another state") {
    ThreadPool pool(4);
    {
      const Odd odd;
      pool.run(1000, look);
      CHECK(odd.isLeft());
    }
    pool.run(1000, look);
    CHECK(standard == 2000);
  }
  SUBCASE("an embedder's threads") {
    const auto run = [](void *, int64_t count, void (*body)(void *, int64_t), void *context) {
      std::vector<std::thread> threads;
      for (int64_t i = 0; i < count; ++i)
        threads.emplace_back([=] {
          const Odd odd;
          body(context, i);
          CHECK(odd.isLeft());
        });
      for (std::thread &t : threads)
        t.join();
    };
    ThreadPool(run, nullptr, 4).run(100, look);
    CHECK(standard == 100);
  }
  CHECK(other == 0);
}

#endif

flashplus_context *contextWith(flashplus_context_options o) {
  o.struct_size = sizeof o;
  o.cache_dir = "";
  o.compiler_path = kFakeCompiler;
  flashplus_context *context = nullptr;
  REQUIRE_MESSAGE(flashplus_context_create(&o, &context) == FLASHPLUS_OK, flashplus_last_error());
  return context;
}

/// Runs `body` on a thread that is asked to end before it begins, and to which callbacks give every occasion.
/// Whether the body came to its end, and the thread then ended as it was asked to.
bool endsAfter(void (*body)(void *), void *argument) {
  struct Run {
    void (*body)(void *);
    void *argument;
    bool done = false;
  } run{body, argument};
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void *given) -> void * {
                auto &r = *static_cast<Run *>(given);
                pthread_cancel(pthread_self());
                r.body(r.argument);
                r.done = true;
                pthread_testcancel();
                return nullptr;
              },
              &run) == 0);
  void *result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  return run.done && result == PTHREAD_CANCELED;
}

} // namespace

TEST_CASE("a thread that is cancelled in a call ends after it") {
  Problem p(2, 200, 300, 4, 2, 32);
  struct Call {
    flashplus_context *context;
    const flashplus_forward_args *args;
    flashplus_status status;
  } call{nullptr, &p.args, FLASHPLUS_INTERNAL};
  const auto forward = [](void *given) {
    auto &c = *static_cast<Call *>(given);
    c.status = flashplus_forward(c.context, c.args, nullptr);
  };
  flashplus_context_options options = {};
  SUBCASE("in a listener, while a kernel is made") {
    options.listener = [](void *, const flashplus_event *) { pthread_testcancel(); };
  }
  SUBCASE("in an embedder's loop") {
    options.pool_threads = 2;
    options.parallel_for = [](void *, int64_t count, void (*body)(void *, int64_t), void *context) {
      pthread_testcancel();
      for (int64_t i = 0; i < count; ++i)
        body(context, i);
      pthread_testcancel();
    };
  }
  SUBCASE("while it waits for workers") { options.num_threads = 64; }
  call.context = contextWith(options);
  for (int i = 0; i < 20; ++i) { // made in the first, found in the others
    CHECK(endsAfter(forward, &call));
    CHECK(call.status == FLASHPLUS_OK);
  }
  CHECK(flashplus_forward(call.context, &p.args, nullptr) == FLASHPLUS_OK); // nothing was left locked
  CHECK(endsAfter([](void *context) { flashplus_context_destroy(static_cast<flashplus_context *>(context)); },
                  call.context));
}
