// SPDX-License-Identifier: BSD-3-Clause
// The lock by which the processes of a machine share work.
#include "cache/key_lock.h"
#include "tests/unit/cache/children.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

using namespace flashplus;
using namespace flashplus::test;
using namespace std::chrono_literals;

namespace {

struct Locks {
  explicit Locks(const std::string &folder, KeyLocks::Patience patience = {})
      : locks(
            folder,
            [this](const std::string &text) {
              log += text + "\n";
              told = true;
            },
            systemFileOps(), patience) {}
  KeyLocks locks;
  std::string log;
  std::atomic<bool> told{false};
};

/// A child that takes the lock; when this returns it has it and has written who it is.
pid_t startHolder(const std::string &folder, const std::string &name) {
  const pid_t child = startChild([&] {
    Locks mine(folder);
    const auto lock = mine.locks.take(name, "it");
    if (lock)
      ::sleep(60);
    return 1;
  });
  const std::string written = std::to_string(child);
  for (std::vector<uint8_t> bytes; std::string(bytes.begin(), bytes.end()) != written;
       bytes = readFile(folder + "/" + name))
    ::usleep(500);
  CHECK(Locks(folder).locks.isTaken(name));
  return child;
}

} // namespace

TEST_CASE("one process has a lock at a time, each in turn, and nothing is left") {
  TemporaryFolder folder;
  const std::string locks = folder.path + "/locks", counted = folder.path + "/counted";
  writeFile(counted, {});
  std::vector<pid_t> children;
  for (int i = 0; i < 8; ++i)
    children.push_back(startChild([&] {
      Locks mine(locks);
      for (int round = 0; round < 20; ++round) {
        const auto lock = mine.locks.take("key", "it");
        if (!lock)
          return 1;
        std::vector<uint8_t> bytes = readFile(counted); // lost updates show who was inside together
        bytes.push_back(1);
        writeFile(counted, bytes);
      }
      return 0;
    }));
  for (pid_t child : children)
    CHECK(waitFor(child) == 0);
  CHECK(readFile(counted).size() == 8 * 20);
  CHECK(filesBelow(locks).empty());
}

TEST_CASE("the lock of a process that dies is free at once") {
  TemporaryFolder folder;
  const pid_t holder = startHolder(folder.path, "key");
  ::kill(holder, SIGKILL);
  waitFor(holder);
  Locks mine(folder.path);
  const auto start = std::chrono::steady_clock::now();
  CHECK(mine.locks.take("key", "it"));
  CHECK(std::chrono::steady_clock::now() - start < 5s);
  CHECK(mine.log.empty());
}

TEST_CASE("who waits for a process that stands still says so, and goes on without the lock") {
  TemporaryFolder folder;
  const pid_t holder = startHolder(folder.path, "key");
  ::kill(holder, SIGSTOP);
  Locks mine(folder.path, {.until_told = 20ms, .most = 100ms});
  CHECK(!mine.locks.take("key", "'a kernel'"));
  CHECK(mine.log.find("waiting for process " + std::to_string(holder) + " to make 'a kernel'") == 0);
  CHECK(mine.log.find("for too long") != std::string::npos);
  CHECK(mine.locks.take("another", "it"));
  ::kill(holder, SIGKILL);
  waitFor(holder);
}

TEST_CASE("a lock file that is deleted while one waits for it costs an exclusion, not a hang") {
  TemporaryFolder folder;
  const pid_t holder = startHolder(folder.path, "key");
  std::filesystem::remove(folder.path + "/key");
  Locks mine(folder.path, {.until_told = 1s, .most = 10s});
  CHECK(mine.locks.take("key", "it"));
  ::kill(holder, SIGKILL);
  waitFor(holder);
}

TEST_CASE("who gets the lock of a file that has lost its name takes that of the new one") {
  // The holder lets go between the opening of its file and the lock.
  static std::function<void()> before_flock;
  FileOps ops = systemFileOps();
  ops.flock = [](int fd, int operation) {
    if (const auto now = std::exchange(before_flock, nullptr))
      now();
    return systemFileOps().flock(fd, operation);
  };
  TemporaryFolder folder;
  Locks mine(folder.path), other(folder.path, {.until_told = 50ms, .most = 100ms});
  const KeyLocks late(folder.path, [](const std::string &) {}, ops);
  auto held = mine.locks.take("key", "it");
  REQUIRE(held);
  CHECK(!held->waited());
  before_flock = [&] { held.reset(); };
  auto lock = late.take("key", "it");
  REQUIRE(lock);
  CHECK(!held);
  CHECK(mine.locks.isTaken("key"));
  CHECK(!other.locks.take("key", "it"));
  lock.reset();
  CHECK(other.locks.take("key", "it"));
  CHECK(filesBelow(folder.path).empty());
}

TEST_CASE("a lock says whether it was waited for") {
  TemporaryFolder folder;
  Locks mine(folder.path), other(folder.path, {.until_told = 1ms});
  auto held = mine.locks.take("key", "it");
  REQUIRE(held);
  CHECK(!held->waited());
  std::thread later([&] {
    while (!other.told)
      std::this_thread::sleep_for(1ms);
    held.reset();
  });
  const auto lock = other.locks.take("key", "it");
  later.join();
  REQUIRE(lock);
  CHECK(lock->waited());
}

TEST_CASE("a child of the holder's does not keep its lock") {
  TemporaryFolder folder;
  Locks mine(folder.path);
  auto lock = mine.locks.take("key", "it");
  REQUIRE(lock);
  const pid_t child = startChild([] { return int(::sleep(60)); });
  CHECK(mine.locks.isTaken("key"));
  lock.reset();
  CHECK(!mine.locks.isTaken("key"));
  Locks other(folder.path, {.until_told = 1s, .most = 2s});
  CHECK(other.locks.take("key", "it"));
  ::kill(child, SIGKILL);
  waitFor(child);
}

TEST_CASE("a folder that others can write to, and what is no file, give no lock and no wait") {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder.path + "/open");
  ::chmod((folder.path + "/open").c_str(), 0777);
  Locks open(folder.path + "/open");
  CHECK(!open.locks.take("key", "it"));
  CHECK(filesBelow(folder.path + "/open").empty());
  Locks mine(folder.path);
  REQUIRE(::mkfifo((folder.path + "/fifo").c_str(), 0600) == 0);
  CHECK(!mine.locks.take("fifo", "it"));
  std::filesystem::create_symlink("elsewhere", folder.path + "/link");
  CHECK(!mine.locks.take("link", "it"));
  CHECK(!std::filesystem::exists(folder.path + "/elsewhere"));
  CHECK(!Locks("").locks.take("key", "it"));
}
