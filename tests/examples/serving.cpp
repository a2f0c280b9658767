// SPDX-License-Identifier: BSD-3-Clause
// The parts of examples/serve.cpp: who gets pages and turns; steps against a plain loop, on a CPU and on the
// emulator; and that a step allocates nothing, counted by a malloc that the library calls, too.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "examples/serving/options.hpp"
#include "examples/serving/plain.hpp"
#include "examples/serving/server.hpp"

#include <atomic>
#include <cstdlib>
#include <doctest/doctest.h>
#include <new>
#include <set>

using namespace serving;

namespace {
std::atomic<int64_t> allocations = 0; // of all threads

flashplus::Context contextOf(int threads) {
  flashplus::ContextOptions options;
  options.num_threads = threads;
  return flashplus::Context::create(options).value();
}

/// Steps on a device, every output checked; allocations of those after the first few.
int64_t serve(const flashplus::Context &context, DLDevice device, const Limits &limits, int steps,
              uint32_t seed) {
  const Model model(limits.prompt + limits.output);
  auto server = Server::create(context, device, nullptr, limits, model);
  REQUIRE_MESSAGE(server, server.error().message);
  Scheduler scheduler(limits, seed);
  Plain plain(model);
  const int64_t compiled = context.counters().compiles, read = context.counters().disk_hits;
  int64_t allocated = 0, decodes = 0, full = 0;
  for (int step = 0; step < steps; ++step) {
    const std::vector<Sequence> &sequences = scheduler.next();
    const int64_t before = allocations;
    const auto staged = server->stage(sequences, model);
    const auto done = server->run();
    const int64_t after = allocations;
    REQUIRE_MESSAGE(staged, staged.error().message);
    REQUIRE_MESSAGE(done, done.error().message);
    allocated += step < 3 ? 0 : after - before; // workers start with the first
    decodes += server->decodesOnly();
    full += int32_t(sequences.size()) == limits.batch;
    auto o = server->output();
    REQUIRE_MESSAGE(o, o.error().message);
    const uint16_t *row = *o;
    float off = 0;
    for (const Sequence &s : sequences) // every row of every sequence
      for (int32_t i = 0; i < s.now; ++i, row += kHeadsQ * kHeadDim)
        if (const float d = plain.difference(s.id, s.cached + i, row); !(d <= off)) // NaN too
          off = d;
    REQUIRE(off <= 0.01f);
    scheduler.finish();
  }
  CHECK(decodes > 0);
  CHECK(decodes < steps);
  CHECK((limits.batch == 1 || full < steps)); // batches were filled up
  CHECK(context.counters().compiles == compiled);
  CHECK(context.counters().disk_hits == read);
  return allocated;
}

} // namespace

// The library has a C++ runtime of its own: what it allocates with comes from here in the end.
extern "C" void *__libc_malloc(size_t size);
extern "C" __attribute__((visibility("default"))) void *malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}

TEST_CASE("the library's allocations are counted") {
  const flashplus::Context context = contextOf(1);
  const char *text = nullptr;
  const int64_t before = allocations;
  REQUIRE(flashplus_describe(context.handle(), &text) == FLASHPLUS_OK);
  CHECK(allocations > before);
}

TEST_CASE("steps on a CPU: right, nothing compiled, nothing allocated") {
  for (int threads : {1, 2}) {
    const flashplus::Context context = contextOf(threads);
    CHECK(serve(context, flashplus::cpu(), {}, 100, 7) == 0);
    // Pages of one token; a prompt takes many steps; a batch of one.
    CHECK(serve(context, flashplus::cpu(), {3, 5, 1, 60, 12}, 80, 1) == 0);
    CHECK(serve(context, flashplus::cpu(), {1, 7, 5, 20, 9}, 50, 2) == 0);
  }
}

#ifdef FLASHPLUS_HAS_EMULATOR
TEST_CASE("steps on the emulator: right, nothing compiled, one workspace for both plans") {
  const flashplus::Context context = contextOf(2);
  for (int number : {0, 1}) // sm_80, sm_90a
    serve(context, {kDLExtDev, number}, {3, 12, 16, 20, 6}, 12, 7);
}
#endif

TEST_CASE("pages and turns") {
  const Limits kinds[] = {{}, {1, 1, 1, 9, 9}, {16, 16, 4, 300, 3}, {5, 200, 64, 33, 70}, {4, 64, 7, 1, 1}};
  for (const Limits &limits : kinds)
    for (uint32_t seed : {0u, 7u, 0xffffffffu}) {
      Scheduler scheduler(limits, seed);
      int64_t tokens = 0, done = 0;
      int32_t last = -1;
      for (int step = 0; step < 300; ++step) {
        const auto &sequences = scheduler.next();
        std::set<int32_t> pages;
        int32_t now = 0, held = 0;
        bool good = !sequences.empty() && int32_t(sequences.size()) <= limits.batch;
        for (const Sequence &s : sequences) {
          now += s.now;
          held += int32_t(s.pages.size());
          good = good && s.cached + s.now <= s.tokens() &&
                 (s.cached < s.prompt || s.now == 1) && // who has begun to answer never waits
                 int32_t(s.pages.size()) == limits.pagesFor(s.cached + s.now) &&
                 int32_t(s.pages.size()) <= std::min(s.promised, limits.pagesOfSequence());
          pages.insert(s.pages.begin(), s.pages.end());
          done += s.cached + s.now == s.tokens();
          last = std::max(last, s.id);
        }
        tokens += now;
        REQUIRE(good);
        REQUIRE(now >= 1);
        REQUIRE(now <= limits.tokens);
        REQUIRE(int32_t(pages.size()) == held); // a page belongs to one sequence
        REQUIRE((pages.empty() || (*pages.begin() >= 0 && *pages.rbegin() < limits.pagesOfPool())));
        REQUIRE(held + scheduler.pool().free() == limits.pagesOfPool());
        scheduler.finish();
        REQUIRE(scheduler.finished == done);
      }
      CHECK(done > 0);
      CHECK(scheduler.arrived > last);
      // A token of a prompt, or one that was said and read again.
      CHECK(tokens <= scheduler.prefilled + scheduler.spoken);
      int32_t promised = 0;
      for (const Sequence &s : scheduler.running())
        promised += s.promised;
      CHECK(promised + scheduler.pool().unpromised() == limits.pagesOfPool());
    }
}

TEST_CASE("bad flags are sentences") {
  auto problem = [](std::vector<std::string> words) {
    words.insert(words.begin(), "serve");
    std::vector<char *> argv;
    for (std::string &word : words)
      argv.push_back(word.data());
    return Options().read(int(argv.size()), argv.data());
  };
  CHECK(problem({}) == "");
  CHECK(problem({"--device", "cuda", "--steps", "5", "--check", "--seed", "0", "--batch", "1024", "--tokens",
                 "1024", "--page", "1", "--prompt", "1", "--output", "1"}) == "");
  CHECK(problem({"cpu"}) == "'cpu' is not known; --help lists what is");
  CHECK(problem({"--stpes", "5"}) == "'--stpes' is not known; --help lists what is");
  CHECK(problem({"--steps"}) == "--steps has no value");
  CHECK(problem({"--device", "tpu"}) == "--device is 'tpu'; it must be cpu, cuda, emulator or auto");
  for (const char *value : {"", "x", "5x", "0", "-1", "1.5", "99999999999999999999"})
    CHECK(problem({"--steps", value}) == "--steps is '" + std::string(value) +
                                             "'; it must be a whole number from 1 to 1000000000");
  CHECK(problem({"--seed", "4294967296"}) ==
        "--seed is '4294967296'; it must be a whole number from 0 to 4294967295");
  CHECK(problem({"--page", "1025"}) == "--page is '1025'; it must be a whole number from 1 to 1024");
  CHECK(problem({"--tokens", "4"}) ==
        "--tokens is 4; it must be at least --batch, 8, a token for each sequence");
}
