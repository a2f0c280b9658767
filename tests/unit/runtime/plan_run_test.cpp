// SPDX-License-Identifier: BSD-3-Clause
// flashplus_context_*, flashplus_plan_* and flashplus_forward on the CPU device, with kernels that only count
// their work items (fake_compiler.cpp). What they compute is the business of tests/conformance.
#include "flashplus/flashplus.h"
#include "tests/tools/temporary.h"
#include "tests/unit/runtime/libraries.h"
#include "tests/unit/runtime/problem.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace flashplus::test;
using nlohmann::json;

namespace {

struct Log {
  std::mutex mutex;
  std::vector<std::string> lines;
  static void add(void *self, const char *message) {
    auto *log = static_cast<Log *>(self);
    std::lock_guard lock(log->mutex);
    log->lines.push_back(message);
  }
};

/// Borrows `cache_dir`.
flashplus_context_options options(const char *cache_dir = "", const char *compiler = kFakeCompiler) {
  flashplus_context_options o = {};
  o.struct_size = sizeof o;
  o.cache_dir = cache_dir;
  o.compiler_path = compiler;
  o.num_threads = 2;
  return o;
}

struct Context {
  explicit Context(const flashplus_context_options &o) {
    REQUIRE_MESSAGE(flashplus_context_create(&o, &handle) == FLASHPLUS_OK, flashplus_last_error());
  }
  Context() : Context(options()) {}
  ~Context() { flashplus_context_destroy(handle); }
  Context(const Context &) = delete;
  operator flashplus_context *() const { return handle; }
  flashplus_counters counters() const {
    flashplus_counters c = {};
    c.struct_size = sizeof c;
    CHECK(flashplus_get_counters(handle, &c) == FLASHPLUS_OK);
    return c;
  }
  flashplus_context *handle = nullptr;
};

flashplus_plan *plan(flashplus_context *context, const flashplus_forward_args &args) {
  flashplus_plan *p = nullptr;
  REQUIRE_MESSAGE(flashplus_plan_create(context, &args, &p) == FLASHPLUS_OK, flashplus_last_error());
  return p;
}

bool lastErrorHas(const std::string &text) {
  const bool found = std::string(flashplus_last_error()).find(text) != std::string::npos;
  if (!found)
    MESSAGE(flashplus_last_error());
  return found;
}

/// Work items that a run of `args` launches.
int64_t items(flashplus_plan *p, flashplus_forward_args args, void *workspace = nullptr, size_t bytes = 0) {
  int64_t count = 0;
  args.tile_counter = &count;
  REQUIRE_MESSAGE(flashplus_plan_run(p, &args, workspace, bytes, nullptr) == FLASHPLUS_OK,
                  flashplus_last_error());
  return count;
}

json describe(flashplus_plan *p) { return json::parse(flashplus_plan_describe(p)); }

struct Aligned {
  explicit Aligned(size_t bytes) : memory(std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256)) {}
  ~Aligned() { std::free(memory); }
  void *memory;
};

} // namespace

TEST_CASE("options that make no sense are refused") {
  flashplus_context *context = nullptr;
  CHECK(flashplus_context_create(nullptr, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  auto refused = [&](const char *text, auto change) {
    flashplus_context_options o = options();
    change(o);
    CHECK(flashplus_context_create(&o, &context) == FLASHPLUS_INVALID_ARGUMENT);
    CHECK(context == nullptr);
    CHECK(lastErrorHas(text));
  };
  refused("options.struct_size is 0", [](auto &o) { o.struct_size = 0; });
  refused("options.num_threads is -1; it must be 0 to 4096", [](auto &o) { o.num_threads = -1; });
  refused("options.num_threads is 5000", [](auto &o) { o.num_threads = 5000; });
  refused("options.pool_threads is 0; with parallel_for it must be 1 to 4096",
          [](auto &o) { o.parallel_for = [](void *, int64_t, void (*)(void *, int64_t), void *) {}; });
  flashplus_context_destroy(nullptr);
  flashplus_plan_destroy(nullptr);
  CHECK(flashplus_plan_workspace(nullptr) == 0);
  CHECK(std::string(flashplus_plan_describe(nullptr)).empty());
}

TEST_CASE("a plan launches its grid; forward does the same") {
  Context context;
  Problem p(2, 200, 300, 4, 2, 32);
  flashplus_plan *made = plan(context, p.args);
  const json d = describe(made);
  REQUIRE(d["steps"].size() == 1);
  CHECK(d["device"] == "cpu");
  CHECK(items(made, p.args) == d["steps"][0]["grid"].get<int64_t>());
  int64_t count = 0;
  p.args.tile_counter = &count;
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  CHECK(count == d["steps"][0]["grid"].get<int64_t>());
  CHECK(context.counters().compiles == 1);
  flashplus_plan_destroy(made);
}

TEST_CASE("a run may be smaller than its plan, not larger") {
  Context context;
  Problem p(4, 200, 300, 4, 2, 32);
  flashplus_plan *made = plan(context, p.args);
  const int64_t tile =
      json::parse(flashplus_plan_describe(made))["steps"][0]["grid"].get<int64_t>() / (4 * 2);
  CHECK(tile == 5); // 200 rows of two heads a key head, in tiles of 96
  Problem smaller(3, 97, 40, 2, 1, 32);
  CHECK(items(made, smaller.args) == 3 * 1 * 3); // 97 rows of two heads
  auto refused = [&](const char *text, const Problem &q) {
    CHECK(flashplus_plan_run(made, &q.args, nullptr, 0, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
    CHECK(lastErrorHas(text));
  };
  refused("args have a batch of 5; the plan was made for at most 4", Problem(5, 1, 300, 4, 2, 32));
  refused("args have a seqlen_q of 201; the plan was made for at most 200", Problem(1, 201, 300, 4, 2, 32));
  refused("args have a seqlen_k of 301", Problem(1, 200, 301, 4, 2, 32));
  refused("args have a heads_q of 6", Problem(1, 200, 300, 6, 2, 32));
  refused("args have the spec 'forward dtype=fp32 dqk=40", Problem(1, 200, 300, 4, 2, 40));
  Problem causal(1, 8, 8, 4, 2, 32);
  causal.args.causal = 1;
  refused("the plan was made for 'forward dtype=fp32 dqk=32", causal);
  Problem lost(1, 8, 8, 4, 2, 32);
  lost.k.tensor.data = nullptr;
  refused("k has null data", lost);
  CHECK(flashplus_plan_run(nullptr, &p.args, nullptr, 0, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("plan is null"));
  CHECK(flashplus_plan_run(made, nullptr, nullptr, 0, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("args is null"));
  flashplus_plan_destroy(made);
}

TEST_CASE("a plan for misaligned rows serves aligned ones, not the other way round") {
  Context context;
  Problem aligned(1, 8, 8, 2, 2, 32), misaligned(1, 8, 8, 2, 2, 32);
  misaligned.k.tensor.byte_offset = 4;
  flashplus_plan *least = plan(context, misaligned.args), *best = plan(context, aligned.args);
  CHECK(items(least, aligned.args) > 0);
  CHECK(flashplus_plan_run(best, &misaligned.args, nullptr, 0, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("align=4"));
  flashplus_plan_destroy(least);
  flashplus_plan_destroy(best);
}

TEST_CASE("a plan may be made without data, and nothing runs for no rows") {
  Context context;
  Problem p(1, 8, 8, 2, 2, 32);
  for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o})
    t->tensor.data = nullptr;
  flashplus_plan *made = plan(context, p.args);
  Problem none(1, 0, 8, 2, 2, 32);
  CHECK(items(made, none.args) == 0);
  CHECK(flashplus_forward(context, &none.args, nullptr) == FLASHPLUS_OK);
  Problem no_keys(1, 8, 0, 2, 2, 32); // rows that see nothing are still written
  CHECK(items(made, no_keys.args) > 0);
  flashplus_plan_destroy(made);
}

TEST_CASE("a split plan has two steps and wants a workspace that is large and aligned enough") {
  Context context;
  Problem p(1, 8, 3000, 2, 2, 32);
  p.args.num_splits = 3;
  flashplus_plan *made = plan(context, p.args);
  const json d = describe(made);
  CHECK(d["num_splits"] == 3);
  REQUIRE(d["steps"].size() == 2);
  const size_t bytes = flashplus_plan_workspace(made);
  CHECK(bytes >= 3 * 8 * 2 * 33 * 4);
  Aligned workspace(bytes);
  CHECK(items(made, p.args, workspace.memory, bytes) == d["steps"][0]["grid"].get<int64_t>());
  CHECK(flashplus_plan_run(made, &p.args, nullptr, bytes, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("workspace has 0 bytes; the plan needs " + std::to_string(bytes)));
  CHECK(flashplus_plan_run(made, &p.args, workspace.memory, bytes - 1, nullptr) ==
        FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("workspace has " + std::to_string(bytes - 1)));
  CHECK(flashplus_plan_run(made, &p.args, static_cast<char *>(workspace.memory) + 16, bytes, nullptr) ==
        FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("workspace is not 256-byte aligned"));
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK); // finds a workspace of its own
  p.args.num_splits = 129;
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("num_splits is 129"));
  flashplus_plan_destroy(made);
}

TEST_CASE("threads share a plan, each with a workspace") {
  Context context;
  Problem p(1, 8, 3000, 2, 2, 32);
  p.args.num_splits = 2;
  flashplus_plan *made = plan(context, p.args);
  const int64_t grid = describe(made)["steps"][0]["grid"];
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      Aligned workspace(flashplus_plan_workspace(made));
      for (int repeat = 0; repeat < 200; ++repeat) {
        int64_t count = 0;
        flashplus_forward_args args = p.args;
        args.tile_counter = &count;
        good += flashplus_plan_run(made, &args, workspace.memory, flashplus_plan_workspace(made), nullptr) ==
                    FLASHPLUS_OK &&
                count == grid;
      }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(good == 800);
  flashplus_plan_destroy(made);
}

TEST_CASE("threads call forward on a cold context: every kernel is compiled once") {
  Context context;
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 30; ++repeat) {
        Problem p(1, 1 + repeat, 64, 2, 1, i % 2 ? 32 : 64);
        good += flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK;
      }
    });
  for (std::thread &t : threads)
    t.join();
  CHECK(good == 180);
  const flashplus_counters c = context.counters();
  CHECK(c.compiles > 0);
  CHECK(c.compiles <= 2 * 4); // two specs, four tile heights
}

TEST_CASE("an embedder's pool runs the kernels, and its exception does not cross the C API") {
  static std::atomic<int> strands{0};
  flashplus_context_options o = options();
  o.parallel_for = [](void *pool, int64_t count, void (*body)(void *, int64_t), void *context) {
    if (*static_cast<bool *>(pool))
      throw std::runtime_error("the pool is gone");
    for (int64_t i = 0; i < count; ++i, ++strands)
      body(context, i);
  };
  bool broken = false;
  o.pool = &broken;
  o.pool_threads = 3;
  Context context(o);
  Problem p(2, 200, 64, 4, 2, 32);
  flashplus_plan *made = plan(context, p.args);
  CHECK(items(made, p.args) == describe(made)["steps"][0]["grid"].get<int64_t>());
  CHECK(strands == 3);
  broken = true;
  CHECK(flashplus_plan_run(made, &p.args, nullptr, 0, nullptr) == FLASHPLUS_INTERNAL);
  CHECK(lastErrorHas("the pool is gone"));
  flashplus_plan_destroy(made);
}

TEST_CASE("a schedule that does not compile is left out once, for the next one") {
  Log log;
  flashplus_context_options o = options();
  o.log = Log::add;
  o.log_context = &log;
  Log events;
  o.listener = [](void *self, const flashplus_event *event) {
    Log::add(self, (std::to_string(event->kind) + " " + event->schedule + ": " + event->detail).c_str());
  };
  o.listener_context = &events;
  Context context(o);
  Problem p(1, 200, 64, 2, 2, 18); // fake_compiler.cpp refuses its tall tile
  for (int repeat = 0; repeat < 3; ++repeat) {
    flashplus_plan *made = plan(context, p.args);
    CHECK(describe(made)["steps"][0]["schedule"].get<std::string>().find("tile_m=12") != std::string::npos);
    flashplus_plan_destroy(made);
    CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  }
  REQUIRE(log.lines.size() == 1);
  CHECK(log.lines[0].find("is left out: the schedule spills") != std::string::npos);
  REQUIRE(events.lines.size() == 5);
  CHECK(events.lines[0].find("8 cpu.flash") == 0); // started, failed, fallback, started, compiled
  CHECK(events.lines[1].find("3 cpu.flash") == 0);
  CHECK(events.lines[2].find("7 cpu.flash") == 0);
  CHECK(events.lines[2].find(": the schedule spills") != std::string::npos);
  CHECK(events.lines[3].find("8 cpu.flash") == 0);
  CHECK(events.lines[4].find("2 cpu.flash") == 0);
  CHECK(context.counters().fallbacks == 1);
  CHECK(context.counters().compile_failures == 1);
  CHECK(context.counters().resident_kernels == 1);
  Problem none(1, 200, 64, 2, 2, 17); // and every tile of this one
  CHECK(flashplus_forward(context, &none.args, nullptr) != FLASHPLUS_OK);
}

TEST_CASE("without a compiler a miss is an error that says so, and everything else works") {
  Context context(options("", "/nowhere.so"));
  Problem p(1, 8, 8, 2, 2, 32);
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_COMPILE_FAILED);
  CHECK(lastErrorHas("/nowhere.so"));
  const char *text = nullptr;
  CHECK(flashplus_describe(context, &text) == FLASHPLUS_OK);
  CHECK(json::parse(text)["compiler"]["state"].get<std::string>().find("missing") == 0);
}

TEST_CASE("a plan keeps what it needs when the context goes first") {
  Problem p(2, 200, 64, 4, 2, 32);
  flashplus_plan *made = nullptr;
  {
    Context context;
    made = plan(context, p.args);
  }
  CHECK(items(made, p.args) > 0);
  flashplus_plan_destroy(made);
}

TEST_CASE("a device that is not there") {
  Context context;
  Problem p(1, 8, 8, 2, 2, 32);
  for (HostTensor *t : {&p.q, &p.k, &p.v, &p.o})
    t->tensor.device = {kDLCPU, 3};
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_NO_DEVICE);
  CHECK(lastErrorHas("device type 1 number 3 does not exist"));
}

TEST_CASE("device memory through the C API") {
  Context context;
  const DLDevice cpu{kDLCPU, 0};
  void *memory = nullptr;
  char text[6] = "";
  REQUIRE(flashplus_device_malloc(context, cpu, 100, &memory) == FLASHPLUS_OK);
  CHECK(reinterpret_cast<uintptr_t>(memory) % 256 == 0);
  CHECK(flashplus_copy_to_device(context, cpu, memory, "hello", 6) == FLASHPLUS_OK);
  CHECK(flashplus_copy_to_host(context, cpu, text, memory, 6) == FLASHPLUS_OK);
  CHECK(std::string(text) == "hello");
  CHECK(flashplus_copy_to_device(context, cpu, nullptr, nullptr, 0) == FLASHPLUS_OK);
  CHECK(flashplus_copy_to_device(context, cpu, nullptr, "x", 1) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(lastErrorHas("dst is null; it must point to 1 bytes"));
  CHECK(flashplus_copy_to_host(context, cpu, text, nullptr, 1) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(flashplus_device_free(context, cpu, memory) == FLASHPLUS_OK);
  CHECK(flashplus_device_free(context, cpu, nullptr) == FLASHPLUS_OK);
  CHECK(flashplus_device_malloc(context, cpu, size_t(1) << 62, &memory) == FLASHPLUS_OUT_OF_MEMORY);
  CHECK(memory == nullptr);
  CHECK(flashplus_device_malloc(context, cpu, ~size_t(0), &memory) == FLASHPLUS_OUT_OF_MEMORY);
  CHECK(flashplus_synchronize(context, cpu, nullptr) == FLASHPLUS_OK);
  CHECK(flashplus_synchronize(nullptr, cpu, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
}

TEST_CASE("the message belongs to the thread") {
  Context context;
  CHECK(flashplus_plan_create(nullptr, nullptr, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
  std::thread([] { CHECK(std::string(flashplus_last_error()).empty()); }).join();
  CHECK(lastErrorHas("context is null"));
  CHECK(std::string(flashplus_status_name(FLASHPLUS_NOT_RESIDENT)) == "not_resident");
  CHECK(std::string(flashplus_status_name(static_cast<flashplus_status>(12))) == "unknown");
}

TEST_CASE("kernels by name") {
  TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  Context context(options(cache.c_str()));
  const char *spec = "forward dtype=bf16 dqk=64 dv=64 right=1";
  flashplus_kernel *kernel = nullptr;
  REQUIRE_MESSAGE(flashplus_get_kernel(context, spec, nullptr, "x86-64-v3", &kernel) == FLASHPLUS_OK,
                  flashplus_last_error());
  flashplus_kernel_info info = {};
  CHECK(flashplus_kernel_get_info(kernel, &info) == FLASHPLUS_INVALID_ARGUMENT);
  info.struct_size = sizeof info;
  REQUIRE(flashplus_kernel_get_info(kernel, &info) == FLASHPLUS_OK);
  CHECK(std::string(info.spec) == spec);
  CHECK(std::string(info.source) == "compiled");
  CHECK(std::string(info.kind) == "x86-object");
  CHECK(info.code_size > 0);
  const std::string key = info.key;
  flashplus_kernel_destroy(kernel);
  REQUIRE(flashplus_get_kernel(context, spec, nullptr, "x86-64-v3", &kernel) == FLASHPLUS_OK);
  CHECK(flashplus_kernel_get_info(kernel, &info) == FLASHPLUS_OK);
  CHECK(std::string(info.source) == "disk");
  CHECK(info.key == key);
  flashplus_kernel_destroy(kernel);

  auto refused = [&](const char *s, const char *schedule, const char *target, const char *text) {
    flashplus_kernel *none = nullptr;
    CHECK(flashplus_get_kernel(context, s, schedule, target, &none) != FLASHPLUS_OK);
    CHECK(none == nullptr);
    CHECK(lastErrorHas(text));
  };
  refused(nullptr, nullptr, "x86-64-v3", "spec is null");
  refused(spec, nullptr, nullptr, "target is null");
  refused("forward", nullptr, "x86-64-v3", "does not parse");
  refused(spec, "cpu.flash tile_m=-1", "x86-64-v3", "schedule");
  refused(spec, "nothing", "x86-64-v3", "'nothing' is not an algorithm");
  refused(spec, nullptr, "riscv", "target 'riscv' is not known");
  refused("forward dtype=fp32 dqk=64 dv=64 right=1", nullptr, "sm_80", "sm_80");

  char *text = nullptr;
  REQUIRE(flashplus_print_stage(context, spec, nullptr, "x86-64-v3", "spec", &text) == FLASHPLUS_OK);
  CHECK(std::string(text).find(key) != std::string::npos);
  flashplus_free_text(text);
  REQUIRE(flashplus_print_stage(context, spec, nullptr, "x86-64-v3", "llvm", &text) == FLASHPLUS_OK);
  CHECK(std::string(text) == "stage llvm");
  flashplus_free_text(text);
  int visited = 0;
  CHECK(flashplus_reachable_kernels(
            context, spec, "x86-64-v3", [](void *n, const char *, const char *) { ++*static_cast<int *>(n); },
            &visited) == FLASHPLUS_OK);
  CHECK(visited > 3);
  CHECK(flashplus_reachable_kernels(
            context, spec, "x86-64-v3", [](void *, const char *, const char *) { throw 42; }, nullptr) ==
        FLASHPLUS_INTERNAL);
}

TEST_CASE("offline, only the cache is used, and the compiler is not opened even to describe it") {
  TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  Problem p(1, 8, 8, 2, 2, 32);
  {
    Context context(options(cache.c_str()));
    CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  }
  flashplus_context_options o = options(cache.c_str(), "/nowhere.so");
  o.offline = 1;
  Context context(o);
  CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  CHECK(context.counters().disk_hits == 1);
  Problem other(1, 8, 8, 2, 2, 40);
  CHECK(flashplus_forward(context, &other.args, nullptr) == FLASHPLUS_NOT_RESIDENT);
  CHECK(lastErrorHas("flashplus warmup --spec"));
  const char *text = nullptr;
  CHECK(flashplus_describe(context, &text) == FLASHPLUS_OK);
  CHECK(json::parse(text)["compiler"]["state"] == "not opened (offline)");
}

TEST_CASE("offline, a damaged entry is kept; a refused folder's tuning records are not read") {
  TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  Problem p(1, 8, 8, 2, 2, 32);
  {
    Context context(options(cache.c_str()));
    CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  }
  std::vector<std::string> entries;
  for (const auto &item : std::filesystem::recursive_directory_iterator(cache))
    if (item.path().extension() == ".fpk")
      entries.push_back(item.path());
  REQUIRE(!entries.empty());
  for (const std::string &entry : entries) {
    std::string bytes = flashplus::test::readText(entry);
    bytes.back() ^= 1;
    flashplus::test::writeText(entry, bytes);
  }
  flashplus_context_options o = options(cache.c_str());
  o.offline = 1;
  {
    Context context(o);
    CHECK(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_NOT_RESIDENT);
  }
  for (const std::string &entry : entries)
    CHECK(std::filesystem::exists(entry));

  std::filesystem::create_directory(cache + "/tuning");
  flashplus::test::writeText(cache + "/tuning/x.json", "{");
  Log log;
  const auto told = [&] {
    log.lines.clear();
    flashplus_context_options watched = options(cache.c_str());
    watched.log = Log::add;
    watched.log_context = &log;
    watched.cache_optional = 1; // else a folder that is refused is an error
    Context context(watched);
    std::string all;
    for (const std::string &line : log.lines)
      all += line + "\n";
    return all;
  };
  CHECK(told().find("is not a tuning record") != std::string::npos);
  flashplus::test::writeText(cache + "/tuning/x.json", std::string(size_t(5) << 20, ' '));
  CHECK(told().find("at most 4194304") != std::string::npos);
  std::filesystem::permissions(cache, std::filesystem::perms(0777));
  CHECK(told().find("x.json") == std::string::npos);
}

TEST_CASE("a cache folder whose name is not UTF-8 is described all the same") {
  TemporaryFolder folder;
  const std::string cache = folder.path("caf\xe9");
  Context context(options(cache.c_str()));
  const char *text = nullptr;
  REQUIRE_MESSAGE(flashplus_describe(context, &text) == FLASHPLUS_OK, flashplus_last_error());
  CHECK(json::parse(text)["cache"]["state"] == "ok");
}

TEST_CASE("structs of an older header are taken as they are") {
  flashplus_context_options o = options();
  o.struct_size = offsetof(flashplus_context_options, listener); // as before there was one
  o.listener = [](void *, const flashplus_event *) { std::abort(); }; // beyond the end
  Context context(o);
  Problem p(1, 8, 8, 2, 2, 32);
  REQUIRE(flashplus_forward(context, &p.args, nullptr) == FLASHPLUS_OK);
  flashplus_counters c = {};
  c.struct_size = offsetof(flashplus_counters, miss_absent);
  c.miss_absent = -7;
  REQUIRE(flashplus_get_counters(context, &c) == FLASHPLUS_OK);
  CHECK(c.compiles == 1);
  CHECK(c.miss_absent == -7);
  c.struct_size = sizeof c;
  REQUIRE(flashplus_get_counters(context, &c) == FLASHPLUS_OK);
  CHECK(c.miss_absent == 1);
  CHECK(c.build_ms == 1);
  CHECK(c.assemble_ms == 5);
  CHECK(c.resident_bytes > 0);
}

TEST_CASE("counters want the size of their struct") {
  Context context;
  flashplus_counters c = {};
  CHECK(flashplus_get_counters(context, &c) == FLASHPLUS_INVALID_ARGUMENT);
  CHECK(flashplus_get_counters(context, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
}

/// What `warm child` does in a process of its own: runs from a cache that the parent filled.
TEST_CASE("warm child" * doctest::skip()) {
  Context context(options(std::getenv("FLASHPLUS_TEST_CACHE")));
  Problem p(1, 8, 8, 2, 2, 32);
  const flashplus_status status = flashplus_forward(context, &p.args, nullptr);
  const std::string maps = readText("/proc/self/maps");
  const bool mapped = maps.find("fake_compiler") != std::string::npos ||
                      maps.find("LLVM") != std::string::npos || maps.find("MLIR") != std::string::npos;
  bool helped = false; // what a helper prints goes to such a file
  for (const auto &file : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone; // the folder's own
    helped |= std::filesystem::read_symlink(file, gone).string().find("compile-helper") != std::string::npos;
  }
  const flashplus_counters c = context.counters();
  const std::string how = std::getenv("FLASHPLUS_TEST_HOW");
  if (how == "warm")
    CHECK((status == FLASHPLUS_OK && c.compiles == 0 && c.disk_hits == 1 && !mapped && !helped));
  else // so that the check above can fail
    CHECK((status == FLASHPLUS_OK && c.compiles == 1 && mapped == (how == "here") && helped == !mapped));
}

TEST_CASE("a process with a warm cache never maps the compiler, nor starts a process for it") {
  TemporaryFolder folder;
  auto run = [&](const std::string &cache_name, const char *how) {
    const std::string cache = folder.path(cache_name);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      setenv("FLASHPLUS_TEST_CACHE", cache.c_str(), 1);
      setenv("FLASHPLUS_TEST_HOW", how, 1);
      if (how == std::string("here"))
        setenv("FLASHPLUS_COMPILE_IN_PROCESS", "1", 1);
      execl("/proc/self/exe", "unit_runtime", "--test-case=warm child", "--no-skip",
            static_cast<char *>(nullptr));
      _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  CHECK(run("here", "here") == 0);
  CHECK(run("cache", "helper") == 0);
  CHECK(run("cache", "warm") == 0);
}
