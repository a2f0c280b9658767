// SPDX-License-Identifier: BSD-3-Clause
// Kernel tables that share: processes of a machine, children of a fork, folders that are only read.
#include "cache/directory.h"
#include "runtime/kernels/kernel_table.h"
#include "tests/soak.h"
#include "tests/tools/temporary.h"
#include "tests/unit/cache/children.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>

#include <sys/mman.h>
#include <sys/resource.h>

using namespace flashplus;
using namespace std::chrono_literals;
using flashplus::test::soakCount;
using flashplus::test::startChild;
using flashplus::test::TemporaryFolder;
using flashplus::test::waitAtMost;

namespace {

const Target kTarget{Isa::X86_64_v3, 0};

PlannedKernel kernelOf(int number) {
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = 8 * (number + 1);
  return {spec, feasibleSchedules(spec, offlineProfile(kTarget)).front()};
}

Result<Compiled> compiledOf(const std::string &spec, const std::string &schedule) {
  Compiled compiled;
  compiled.artifact.code = {1, 2, 3};
  compiled.artifact.launch = *launchSchema(*KernelSpec::parse(spec), *Schedule::parse(schedule), kTarget);
  return compiled;
}

KernelTable::Compile slowCompile(std::atomic<int> &count, std::chrono::milliseconds time) {
  return [&count, time](const std::string &spec, const std::string &schedule, const std::string &, bool,
                        const CompilerLibrary::Waiting &) {
    ++count;
    std::this_thread::sleep_for(time);
    return compiledOf(spec, schedule);
  };
}

void noLog(const std::string &) {}

std::unique_ptr<KernelStore> storeIn(const std::string &dir) { return KernelStore::open(dir, noLog); }

/// Counts that processes share.
struct SharedCounts {
  std::atomic<int> compiles{0}, ready{0};
  static SharedCounts *make() {
    void *memory =
        ::mmap(nullptr, sizeof(SharedCounts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : new (memory) SharedCounts;
  }
};

} // namespace

TEST_CASE("processes that start with an empty cache compile each kernel once between them") {
  const int processes = soakCount(64, 8), keys = soakCount(16, 4);
  TemporaryFolder folder;
  SharedCounts *shared = SharedCounts::make();
  REQUIRE(shared);
  std::vector<pid_t> children;
  for (int process = 0; process < processes; ++process)
    children.push_back(startChild([&] {
      auto store = storeIn(folder.path("cache"));
      const KeyLocks locks(folder.path("locks"), noLog);
      KernelTable table({*store, {}, &locks}, slowCompile(shared->compiles, 20ms), false, noLog);
      ++shared->ready;
      while (shared->ready < processes)
        ::usleep(100);
      for (int key = 0; key < keys; ++key)
        if (auto code = table.code(kernelOf(key), kTarget); !code || (*code)->artifact.code.size() != 3)
          return 1;
      return table.counters.compiles + table.counters.disk_hits == keys ? 0 : 2;
    }));
  for (pid_t child : children)
    CHECK(waitAtMost(child, 60s) == 0);
  CHECK(shared->compiles == keys);
  ::munmap(shared, sizeof *shared);
}

namespace {

/// Processes that start together and want `keys` kernels, of which no two are kept.
template <class MakeTable> double secondsOf(int processes, int keys, MakeTable makeTable) {
  SharedCounts *shared = SharedCounts::make();
  REQUIRE(shared);
  std::vector<pid_t> children;
  const auto start = std::chrono::steady_clock::now();
  for (int process = 0; process < processes; ++process)
    children.push_back(startChild([&] {
      ++shared->ready;
      while (shared->ready < processes)
        ::usleep(100);
      return makeTable([&](KernelTable &table) {
        for (int key = 0; key < keys; ++key)
          (void)table.code(kernelOf(key), kTarget);
        shared->compiles += int(table.counters.compiles + table.counters.compile_failures);
      });
    }));
  for (pid_t child : children)
    CHECK(waitAtMost(child, 60s) == 0);
  CHECK(shared->compiles == processes * keys);
  ::munmap(shared, sizeof *shared);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

TEST_CASE("where nothing can be kept no process waits for what others make, but once") {
  TemporaryFolder folder;
  constexpr int kProcesses = 8, kKeys = 2;
  constexpr auto kTime = 300ms; // each after the other: 4.8 s
  FileOps full = systemFileOps();
  full.write = [](int fd, const void *data, size_t size) -> ssize_t {
    if (size > 100) // not the number of a process in a lock
      return errno = ENOSPC, -1;
    return systemFileOps().write(fd, data, size);
  };
  const KeyLocks locks(folder.path("locks"), noLog);
  const double seconds = secondsOf(kProcesses, kKeys, [&](auto body) {
    auto store = KernelStore::open(folder.path("cache"), noLog, full);
    std::atomic<int> compiles{0};
    KernelTable table({*store, {}, &locks}, slowCompile(compiles, kTime), false, noLog);
    body(table);
    return table.counters.publish_failures == kKeys ? 0 : 1;
  });
  CHECK(seconds < 3.5);
}

TEST_CASE("after a kernel that could not be kept nobody is waited for, until one is kept again") {
  TemporaryFolder folder;
  static bool full;
  FileOps ops = systemFileOps();
  ops.write = [](int fd, const void *data, size_t size) -> ssize_t {
    return full ? (errno = ENOSPC, -1) : systemFileOps().write(fd, data, size);
  };
  std::string told;
  const KeyLocks locks(
      folder.path("locks"), [&](const std::string &text) { told += text; }, systemFileOps(),
      {.until_told = 10ms, .most = 200ms});
  const KeyLocks others(folder.path("locks"), noLog);
  auto store = KernelStore::open(folder.path("cache"), noLog, ops);
  std::atomic<int> compiles{0};
  KernelTable table({*store, {}, &locks}, slowCompile(compiles, 0ms), false, noLog);
  const auto isWaitedFor = [&](int kernel) {
    const std::string key = KernelTable::keyOf(kernelOf(kernel), kTarget).text();
    const auto lock = others.take(hashText(store->identity() + "\n" + key).hex(), "it");
    REQUIRE(lock);
    told.clear();
    REQUIRE(table.code(kernelOf(kernel), kTarget));
    return !told.empty();
  };
  REQUIRE(table.code(kernelOf(0), kTarget));
  CHECK(isWaitedFor(1));
  full = true;
  REQUIRE(table.code(kernelOf(2), kTarget));
  CHECK(!isWaitedFor(3));
  full = false;
  REQUIRE(table.code(kernelOf(4), kTarget));
  CHECK(isWaitedFor(5));
  CHECK(compiles == 6);
}

TEST_CASE("where a kernel does not compile no process waits for more than one other") {
  TemporaryFolder folder;
  const KeyLocks locks(folder.path("locks"), noLog);
  const double seconds = secondsOf(8, 1, [&](auto body) {
    auto store = storeIn(folder.path("cache"));
    KernelTable table(
        {*store, {}, &locks},
        [](const std::string &, const std::string &, const std::string &, bool,
           const CompilerLibrary::Waiting &) -> Result<Compiled> {
          std::this_thread::sleep_for(500ms);
          return Status(StatusCode::CompileFailed, "a test");
        },
        false, noLog);
    body(table);
    return 0;
  });
  CHECK(seconds < 3.0); // each after the other: 4 s
}

TEST_CASE("what the first look found of no use is not looked at again, counted or told twice") {
  TemporaryFolder folder;
  const KeyLocks locks(folder.path("locks"), noLog);
  auto misses = MissRecord::open(folder.path("misses"));
  REQUIRE(misses);
  std::vector<std::string> warnings;
  auto store = KernelStore::open(folder.path("cache"),
                                 [&](const std::string &text) { warnings.push_back(text); });
  std::atomic<int> compiles{0};
  KernelTable::Stores stores(*store, {}, &locks);
  stores.misses = misses->get();
  {
    KernelTable table(stores, slowCompile(compiles, 0ms), false, noLog);
    REQUIRE(table.code(kernelOf(0), kTarget));
  }
  const std::string entry =
      entryPath(store->dir(), KernelTable::keyOf(kernelOf(0), kTarget).hash());
  std::filesystem::permissions(entry, std::filesystem::perms(0666)); // others may have written it
  KernelTable table(stores, slowCompile(compiles, 0ms), false, noLog);
  REQUIRE(table.code(kernelOf(0), kTarget));
  CHECK(compiles == 2);
  CHECK(warnings.size() == 1);
  CHECK(table.counters.miss_unreadable == 1);
  // It was there, so it is in the record of the first time only.
  const std::string recorded = flashplus::test::readText(folder.path("misses"));
  CHECK(std::ranges::count(recorded, '\n') == 1);
}

TEST_CASE("without a cache on disk, offline and after the lock's folder went bad nobody waits") {
  TemporaryFolder folder;
  const KeyLocks locks(folder.path("locks"), noLog), none("/proc/no-such-folder", noLog);
  std::atomic<int> compiles{0};
  auto memory = storeIn(""), disk = storeIn(folder.path("cache"));
  KernelTable in_memory({*memory, {}, &locks}, slowCompile(compiles, 0ms), false, noLog);
  CHECK(in_memory.code(kernelOf(0), kTarget));
  CHECK(!std::filesystem::exists(folder.path("locks")));
  KernelTable offline({*disk, {}, &locks}, slowCompile(compiles, 0ms), true, noLog);
  CHECK(!offline.code(kernelOf(0), kTarget));
  CHECK(!std::filesystem::exists(folder.path("locks")));
  KernelTable without({*disk, {}, &none}, slowCompile(compiles, 0ms), false, noLog);
  CHECK(without.code(kernelOf(0), kTarget));
  CHECK(compiles == 2);
}

TEST_CASE("a folder that is only read spares a compilation, and is left as it is") {
  TemporaryFolder folder;
  std::atomic<int> compiles{0};
  {
    auto image = storeIn(folder.path("image"));
    KernelTable table(*image, slowCompile(compiles, 0ms), false, noLog);
    REQUIRE(table.code(kernelOf(0), kTarget));
  }
  auto image = KernelStore::openReadOnly(folder.path("image"), noLog);
  auto own = storeIn(folder.path("own"));
  KernelTable table({*own, {image.get()}}, slowCompile(compiles, 0ms), false, noLog);
  CHECK(table.code(kernelOf(0), kTarget));
  CHECK(compiles == 1);
  CHECK(own->usage().entries == 0);
  CHECK(table.code(kernelOf(1), kTarget));
  CHECK(compiles == 2);
  CHECK(own->usage().entries == 1);
  CHECK(image->usage().entries == 1);
}

TEST_CASE("a file of misses names what no folder had, for warm-up") {
  TemporaryFolder folder;
  std::atomic<int> compiles{0};
  auto misses = MissRecord::open(folder.path("misses"));
  REQUIRE(misses);
  auto own = storeIn(folder.path("own"));
  KernelTable::Stores stores(*own);
  stores.misses = misses->get();
  KernelTable table(stores, slowCompile(compiles, 0ms), false, noLog), offline(stores, {}, true, noLog);
  CHECK(table.code(kernelOf(0), kTarget));
  CHECK(table.code(kernelOf(0), kTarget)); // which is no miss
  CHECK(!offline.code(kernelOf(1), kTarget));
  const auto line = [](int number) {
    const PlannedKernel kernel = kernelOf(number);
    return kernel.spec.text() + "\t" + kernel.schedule.text() + "\t" + kTarget.text() + "\n";
  };
  CHECK(flashplus::test::readText(folder.path("misses")) == line(0) + line(1));
  CHECK(MissRecord::open(folder.path("no/such/folder")).status().code() == StatusCode::InvalidArgument);
}

TEST_CASE("a line of misses that was cut off leaves the next one whole") {
  TemporaryFolder folder;
  auto misses = MissRecord::open(folder.path("misses"));
  REQUIRE(misses);
  CHECK((*misses)->add("first", "s", "t").isOk());
  const auto limitFiles = [](rlim_t bytes) { // beyond which a write is short
    rlimit limit = {};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = std::min(bytes, limit.rlim_max);
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  const auto before = ::signal(SIGXFSZ, SIG_IGN);
  limitFiles(15);
  const Status cut = (*misses)->add("second", "s", "t");
  limitFiles(RLIM_INFINITY);
  ::signal(SIGXFSZ, before);
  CHECK(cut.code() == StatusCode::IoError);
  CHECK((*misses)->add("third", "s", "t").isOk());
  CHECK((*misses)->add("fourth", "s", "t").isOk());
  CHECK(flashplus::test::readText(folder.path("misses")) ==
        "first\ts\tt\nsecon\nthird\ts\tt\nfourth\ts\tt\n");
}

#ifndef FLASHPLUS_TSAN // which does not follow fork() from a process with threads
TEST_CASE("a child that is forked while a thread compiles makes the same kernel itself") {
  TemporaryFolder folder;
  auto store = storeIn(folder.path("cache"));
  const KeyLocks locks(folder.path("locks"), noLog);
  std::atomic<int> compiles{0};
  KernelTable table({*store, {}, &locks}, slowCompile(compiles, 2ms), false, noLog);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    for (int key = 0; !stop; key = (key + 1) % 30) {
      (void)table.code(kernelOf(key), kTarget);
      store->discard(KernelTable::keyOf(kernelOf(key), kTarget), "a test");
    }
  });
  for (int i = 0; i < soakCount(200); ++i)
    REQUIRE(waitAtMost(startChild([&] {
                         for (int key = 0; key < 30; ++key)
                           if (!table.code(kernelOf(key), kTarget))
                             return 1;
                         return 0;
                       }),
                       60s) == 0);
  stop = true;
  busy.join();
}
#endif
