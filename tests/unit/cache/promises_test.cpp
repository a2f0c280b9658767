// SPDX-License-Identifier: BSD-3-Clause
// Promises of docs/cache.md that no other test of the store is about.
#include "cache/pack.h"
#include "cache/pack_writer.h"
#include "tests/soak.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <random>
#include <sstream>

#include <fcntl.h>

using namespace flashplus;
using namespace flashplus::test;

namespace {

std::vector<std::string> callsOf(const std::string &trace) {
  std::istringstream in(trace);
  return {std::istream_iterator<std::string>(in), {}};
}

} // namespace

TEST_CASE("P2: what was published is not read back, which a network file system may not show for a minute") {
  TemporaryFolder folder;
  static const FileOps blind = [] {
    FileOps ops = plainOps();
    ops.open = [](int dir, const char *name, int flags, mode_t mode) {
      if (std::strlen(name) > 32 && std::strstr(name, ".fpk") && !(flags & O_CREAT)) {
        errno = ENOENT; // as a directory that was cached before the rename says
        return -1;
      }
      return plainOps().open(dir, name, flags, mode);
    };
    return ops;
  }();
  LoggedStore first(folder.path, blind), second(folder.path, blind), clear(folder.path);
  CHECK(first->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(second->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(first->read(sampleKey()).miss == Miss::Absent);
  CHECK(first.warnings->empty());
  CHECK(second.warnings->empty());
  CHECK(clear->read(sampleKey()).artifact == sampleArtifact());
  CHECK(filesBelow(folder.path).size() == 1);
}

TEST_CASE("R3: a hit is a handful of calls of the system, and in a pack two") {
  TemporaryFolder folder;
  LoggedStore store(folder.path + "/cache", faultyOps());
  for (int i = 0; i < 50; ++i)
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i)).isOk());
  fault() = {};
  REQUIRE(store->read(sampleKey()).isHit());
  const std::vector<std::string> calls = callsOf(fault().trace);
  CAPTURE(fault().trace);
  CHECK(calls.size() == 8);
  CHECK(std::ranges::count(calls, "read") == 1);
  CHECK(std::ranges::count(calls, "list") == 0);
  const std::string path = folder.path + "/kernels.fpk";
  REQUIRE(writePack(path, {store.store.get(), store->list(), {}}, plainOps()).isOk());
  auto pack = KernelPack::open(
      path, sampleKey().build, [](const std::string &) {}, faultyOps());
  fault() = {};
  REQUIRE(pack->read(sampleKey(7)).isHit());
  CHECK(fault().trace == "fstat pread ");
  fault() = {};
}

TEST_CASE("E1: whatever is published, read and deleted by two stores, the cache is no larger than it may "
          "be") {
  const int rounds = soakCount(2000);
  std::mt19937 random{uint32_t(turn())};
  TemporaryFolder folder;
  constexpr size_t kBytes = 10'000, kMost = 5 * kBytes; // an entry is somewhat larger than its code
  LoggedStore stores[] = {LoggedStore(folder.path), LoggedStore(folder.path)};
  std::vector<KernelKey> keys;
  for (int i = 0; i < 12; ++i)
    keys.push_back(sampleKey(i));
  for (LoggedStore &store : stores)
    store->setMostBytes(kMost);
  int hits = 0;
  for (int round = 0; round < rounds; ++round) {
    LoggedStore &store = stores[random() % 2];
    const KernelKey &key = keys[random() % keys.size()];
    switch (random() % 4) {
    case 0:
      hits += store->read(key).isHit();
      break;
    case 1:
      std::filesystem::remove(entryFile(folder.path, keys[random() % keys.size()]));
      break;
    default:
      REQUIRE(store->publish(key, sampleArtifact(int(random() % 3), kBytes)).isOk());
    }
    REQUIRE(stores[0]->usage().bytes <= int64_t(kMost));
  }
  CHECK(hits > 0);
  CHECK(stores[0]->counters().evicted + stores[1]->counters().evicted > 0);
  for (const LoggedStore &store : stores)
    for (const std::string &warning : *store.warnings)
      CHECK(warning.find("had more than 50000 bytes") != std::string::npos);
}
