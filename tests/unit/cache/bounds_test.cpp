// SPDX-License-Identifier: BSD-3-Clause
// How large a store may become, and what goes first.
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

using namespace flashplus;
using namespace flashplus::test;

namespace {

void setUsed(const std::string &path, int64_t seconds_ago) {
  const timespec then{::time(nullptr) - seconds_ago, 0}, times[] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

int64_t usedAgo(const std::string &path) {
  struct stat info = {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  return ::time(nullptr) - info.st_mtime;
}

/// Keys whose entries are in one folder.
std::vector<KernelKey> keysOfOneShard(size_t count) {
  std::vector<KernelKey> keys;
  for (int i = 0; keys.size() < count; ++i)
    if (shardName(sampleKey(i).hash()) == shardName(sampleKey(0).hash()))
      keys.push_back(sampleKey(i));
  return keys;
}

} // namespace

TEST_CASE("what was not used for longest goes when something is published, and never what was published") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  const std::vector<KernelKey> keys = keysOfOneShard(5);
  store->setMostBytes(256 * 250'000); // of a folder two entries of 100,000 bytes
  for (size_t i = 0; i < 2; ++i)
    REQUIRE(store->publish(keys[i], sampleArtifact(int(i), 100'000)).isOk());
  setUsed(entryFile(folder.path, keys[0]), 1000);
  setUsed(entryFile(folder.path, keys[1]), 2000);
  REQUIRE(store->publish(keys[2], sampleArtifact(2, 100'000)).isOk());
  CHECK(store->has(keys[0]));
  CHECK(!store->has(keys[1]));
  CHECK(store->counters().evicted == 1);
  REQUIRE(store->publish(keys[3], sampleArtifact(3, 900'000)).isOk()); // larger than the folder may be
  CHECK(store->has(keys[3]));
  CHECK(store->usage().entries == 1);
  store->setMostBytes(0);
  for (const KernelKey &key : keys)
    REQUIRE(store->publish(key, sampleArtifact(4, 900'000)).isOk());
  CHECK(store->usage().entries == 5);
  CHECK(store.warnings->empty());
}

TEST_CASE("a use is noted once an hour, where one may write, and files of others are never touched") {
  TemporaryFolder folder;
  LoggedStore store(folder.path), keeper(folder.path, systemFileOps(), KernelStore::Bad::Keep);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  const std::string entry = entryFile(folder.path, sampleKey());
  setUsed(entry, 1800);
  CHECK(store->read(sampleKey()).isHit());
  CHECK(usedAgo(entry) >= 1800);
  setUsed(entry, 7200);
  CHECK(keeper->read(sampleKey()).isHit());
  CHECK(usedAgo(entry) >= 7200);
  CHECK(store->read(sampleKey()).isHit());
  CHECK(usedAgo(entry) < 100);
}

TEST_CASE("eviction deletes entries only") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  const std::vector<KernelKey> keys = keysOfOneShard(2);
  REQUIRE(store->publish(keys[0], sampleArtifact()).isOk());
  const std::string mine = folder.path + "/" + shardName(keys[0].hash()) + "/mine.txt";
  writeFile(mine, std::vector<uint8_t>(1000));
  setUsed(mine, 100'000);
  store->setMostBytes(256);
  REQUIRE(store->publish(keys[1], sampleArtifact()).isOk());
  CHECK(!store->has(keys[0]));
  CHECK(std::filesystem::exists(mine));
}

TEST_CASE("prune leaves what its limits say, and sweeps what dead writers left") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 10'000)).isOk());
    setUsed(entryFile(folder.path, sampleKey(i)), i * 10'000);
  }
  const std::string stale = folder.path + "/tmp/1-0123456789abcdef.tmp",
                    fresh = stale.substr(0, stale.size() - 20) + "fedcba9876543210.tmp";
  writeFile(stale, {});
  writeFile(fresh, {});
  setUsed(stale, 7200);
  KernelKey other = sampleKey(9);
  other.build = "another";
  REQUIRE(store->publish(other, sampleArtifact(9, 10'000)).isOk());

  REQUIRE(store->prune({.build = sampleKey().build}).isOk());
  CHECK(!store->has(other));
  CHECK(store->usage().entries == 4);
  CHECK(!std::filesystem::exists(stale));
  CHECK(std::filesystem::exists(fresh));
  REQUIRE(store->prune({.used_since = ::time(nullptr) - 25'000}).isOk());
  CHECK(store->usage().entries == 3);
  CHECK(!store->has(sampleKey(3)));
  auto removed = store->prune({.most_bytes = 15'000});
  REQUIRE(removed.isOk());
  CHECK(removed->entries == 2);
  CHECK(store->has(sampleKey(0)));
}

TEST_CASE("the first publish of a process sweeps what dead writers left") {
  TemporaryFolder folder;
  REQUIRE(LoggedStore(folder.path)->publish(sampleKey(), sampleArtifact()).isOk());
  const std::string stale = folder.path + "/tmp/1-0123456789abcdef.tmp";
  writeFile(stale, {});
  setUsed(stale, 7200);
  LoggedStore store(folder.path);
  REQUIRE(store->publish(sampleKey(1), sampleArtifact()).isOk());
  CHECK(!std::filesystem::exists(stale));
}
