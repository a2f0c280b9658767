// SPDX-License-Identifier: BSD-3-Clause
// Many processes on one folder, some of which are killed.
#include "tests/soak.h"
#include "tests/unit/cache/children.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <csignal>
#include <functional>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flashplus;
using namespace flashplus::test;

TEST_CASE("eight processes publish the same keys: one winner each, nobody sees anything wrong") {
  constexpr int kProcesses = 8, kKeys = 8;
  const int rounds = soakCount(10);
  struct Shared {
    std::atomic<int> ready{0};
    std::atomic<int64_t> published{0};
  };
  void *memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  for (int round = 0; round < rounds; ++round) {
    auto *shared = new (memory) Shared;
    TemporaryFolder folder;
    const std::string dir = folder.path + "/cache"; // made by whoever comes first
    std::vector<pid_t> children;
    for (int process = 0; process < kProcesses; ++process)
      children.push_back(startChild([&] {
        ++shared->ready;
        while (shared->ready < kProcesses)
          ::usleep(100);
        LoggedStore store(dir);
        if (!store->onDisk())
          return 2;
        for (int i = 0; i < kKeys; ++i) {
          const int number = process * kKeys + i; // Compilers that disagree: the worst case.
          if (!store->publish(sampleKey(i), sampleArtifact(number, 100'000)))
            return 3;
          const ReadResult result = store->read(sampleKey(i));
          if (!result.isHit())
            return 4;
          bool is_someones = false;
          for (int other = 0; other < kProcesses; ++other)
            is_someones |= *result.artifact == sampleArtifact(other * kKeys + i, 100'000);
          if (!is_someones)
            return 5;
        }
        shared->published += store->counters().published;
        return store.warnings->empty() ? 0 : 6;
      }));
    for (pid_t child : children)
      CHECK(waitFor(child) == 0);
    CHECK(shared->published == kKeys);
    LoggedStore store(dir);
    CHECK(store->list().size() == kKeys);
    CHECK(store->verify().empty());
    CHECK(filesBelow(dir).size() == kKeys); // no temporary
  }
  ::munmap(memory, sizeof(Shared));
}

TEST_CASE(
    "a writer killed before any of its file operations, or inside a write, leaves a whole entry or none") {
  for (bool no_links : {false, true}) {
    int kills = 0, whole = 0;
    for (int at = 1;; ++at) {
      TemporaryFolder folder;
      const int status = waitFor(startChild([&] {
        LoggedStore store(folder.path, faultyOps());
        fault() = {.kind = Fault::Kill, .at = at, .no_links = no_links};
        return store->publish(sampleKey(), sampleArtifact()).isOk() ? 0 : 1;
      }));
      LoggedStore store(folder.path);
      const ReadResult result = store->read(sampleKey());
      REQUIRE(store.warnings->empty());
      REQUIRE(store->verify().empty());
      whole += result.isHit();
      if (result.isHit())
        REQUIRE(*result.artifact == sampleArtifact());
      REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
      REQUIRE(store->read(sampleKey()).isHit());
      if (WIFEXITED(status)) {
        REQUIRE(WEXITSTATUS(status) == 0);
        break;
      }
      REQUIRE(WTERMSIG(status) == SIGKILL);
      ++kills;
    }
    CHECK(kills >= 8);
    CHECK(whole >= 2);
    CHECK(whole < kills);
  }
}

TEST_CASE("writers killed at random moments never leave a bad entry") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  const int rounds = soakCount(1000);
  for (int round = 0; round < rounds; ++round) {
    const pid_t child = startChild([&] {
      LoggedStore mine(folder.path);
      for (int i = 0;; ++i) {
        (void)mine->publish(sampleKey(i % 50), sampleArtifact(i % 50, 200'000));
        mine->discard(sampleKey((i + 25) % 50), "test");
      }
      return 0;
    });
    ::usleep(static_cast<useconds_t>(1000 + round * 137 % 5000));
    ::kill(child, SIGKILL);
    waitFor(child);
  }
  CHECK(store->verify().empty());
  for (int i = 0; i < 50; ++i) {
    const ReadResult result = store->read(sampleKey(i));
    if (result.isHit())
      CHECK(*result.artifact == sampleArtifact(i, 200'000));
    else
      CHECK(result.miss == Miss::Absent);
  }
  CHECK(store.warnings->empty());

  // What they left behind goes with the next sweep, once it is old.
  const timespec old[2] = {{1, 0}, {1, 0}};
  for (const std::string &name : filesBelow(folder.path))
    if (name.starts_with("tmp/"))
      REQUIRE(::utimensat(AT_FDCWD, (folder.path + "/" + name).c_str(), old, 0) == 0);
  LoggedStore next(folder.path);
  REQUIRE(next->publish(sampleKey(50), sampleArtifact(50, 200'000)).isOk());
  for (const std::string &name : filesBelow(folder.path))
    CHECK_MESSAGE(!name.starts_with("tmp/"), name);
}
