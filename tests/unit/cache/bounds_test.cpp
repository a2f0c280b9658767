// SPDX-License-Identifier: BSD-3-Clause
// How large a store may become, and what goes first.
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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

} // namespace

TEST_CASE("what was not used for longest goes, wherever it is, and never what was published") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  store->setMostBytes(450'000, "$A_NAME"); // four entries of 100,000 bytes, of six in as many folders
  std::set<std::string> shards;
  for (int i = 0; i < 4; ++i) {
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 100'000)).isOk());
    setUsed(entryFile(folder.path, sampleKey(i)), 1000 * (i + 1));
    shards.insert(shardName(sampleKey(i).hash()));
  }
  CHECK(shards.size() == 4);
  CHECK(store->counters().evicted == 0);
  CHECK(store.warnings->empty());
  REQUIRE(store->publish(sampleKey(4), sampleArtifact(4, 100'000)).isOk());
  CHECK(!store->has(sampleKey(3)));
  for (int i : {0, 1, 2, 4})
    CHECK(store->has(sampleKey(i)));
  CHECK(store->counters().evicted == 1);
  REQUIRE(store.warnings->size() == 1);
  CHECK(store.warnings->front().find("more than 450000 bytes ($A_NAME)") != std::string::npos);
  REQUIRE(store->publish(sampleKey(5), sampleArtifact(5, 900'000)).isOk()); // more than all may have
  CHECK(store->has(sampleKey(5)));
  CHECK(store->usage().entries == 1);
  CHECK(store->counters().evicted == 5);
  CHECK(store.warnings->size() == 1);
  store->setMostBytes(0);
  for (int i = 0; i < 5; ++i)
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 900'000)).isOk());
  CHECK(store->usage().entries == 6);
}

TEST_CASE("a store is filled up to its limit, not up to the share of a folder, and does not go far beyond") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  constexpr int64_t kMost = 4'000'000; // of 256 folders 15,625 each
  store->setMostBytes(kMost);
  int64_t most = 0, evicted_at = 0;
  for (int i = 0; i < 600; ++i) {
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 10'000)).isOk());
    if (i % 20)
      continue;
    most = std::max(most, store->usage().bytes);
    if (!evicted_at && store->counters().evicted)
      evicted_at = most;
  }
  CHECK(most > kMost * 95 / 100); // nothing went before
  CHECK(evicted_at > kMost * 95 / 100);
  CHECK(most < kMost * 102 / 100);
}

TEST_CASE("an entry that is replaced by a larger one counts, too") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  store->setMostBytes(250'000);
  Artifact ptx = sampleArtifact();
  ptx.kind = CodeKind::Ptx;
  ptx.code.assign(100, 'a');
  REQUIRE(store->publish(sampleKey(0), ptx).isOk());
  REQUIRE(store->publish(sampleKey(1), sampleArtifact(1, 200'000)).isOk());
  setUsed(entryFile(folder.path, sampleKey(1)), 1000);
  REQUIRE(store->publish(sampleKey(0), sampleArtifact(0, 200'000)).isOk());
  CHECK(store->counters().replaced == 1);
  CHECK(store->has(sampleKey(0)));
  CHECK(!store->has(sampleKey(1)));
}

TEST_CASE("the whole store is looked through seldom, however small or full it is") {
  TemporaryFolder folder;
  static int listings;
  FileOps ops = plainOps();
  ops.list = [](int dir, std::vector<std::string> &names) {
    ++listings;
    return plainOps().list(dir, names);
  };
  LoggedStore store(folder.path, ops);
  store->setMostBytes(2'560'000); // a look in 10,000 bytes
  const auto publish = [&](int from, int to) {
    listings = 0;
    for (int i = from; i < to; ++i)
      REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 300)).isOk());
    return listings;
  };
  publish(0, 1);
  CHECK(publish(1, 500) < 600); // far from the limit one folder each
  for (int i = 500; i < 900; ++i)
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 5'000)).isOk());
  const int64_t entries = store->usage().entries;
  CHECK(publish(1000, 1400) < 400 + 30 * 257); // some 20 looks
  CHECK(store->counters().evicted > 0);
  CHECK(store->usage().entries > entries);
}

TEST_CASE("a use is noted once an hour, in those that are only read when they are told to") {
  TemporaryFolder folder;
  LoggedStore store(folder.path), keeper(folder.path, plainOps(), KernelStore::Bad::Keep);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  const std::string entry = entryFile(folder.path, sampleKey());
  const auto usedAfterReadOf = [&](KernelStore &reader, int64_t ago) {
    setUsed(entry, ago);
    CHECK(reader.read(sampleKey()).isHit());
    return usedAgo(entry);
  };
  CHECK(usedAfterReadOf(*store.store, 1800) >= 1800);
  CHECK(usedAfterReadOf(*store.store, 7200) < 100);
  CHECK(usedAfterReadOf(*keeper.store, 7200) < 100);
  const auto tier = KernelStore::openReadOnly(folder.path, nullptr);
  CHECK(usedAfterReadOf(*tier, 7200) >= 7200);
  tier->setNotesUse(true); // an offline context's own
  CHECK(usedAfterReadOf(*tier, 7200) < 100);
}

TEST_CASE("eviction deletes entries only") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  REQUIRE(store->publish(sampleKey(0), sampleArtifact()).isOk());
  const std::string mine = folder.path + "/" + shardName(sampleKey(0).hash()) + "/mine.txt";
  writeFile(mine, std::vector<uint8_t>(1000));
  setUsed(mine, 100'000);
  store->setMostBytes(256);
  REQUIRE(store->publish(sampleKey(1), sampleArtifact()).isOk());
  CHECK(!store->has(sampleKey(0)));
  CHECK(std::filesystem::exists(mine));
}

TEST_CASE("files of another user neither count nor go") {
  // One that root put into this user's folder. Who owns a file is what lstat says: no other user is needed.
  static std::string roots;
  TemporaryFolder folder;
  FileOps ops = plainOps();
  ops.lstat = [](int dir, const char *name, struct stat *info) {
    const int result = plainOps().lstat(dir, name, info);
    if (result == 0 && roots == name)
      info->st_uid = ::geteuid() + 1;
    return result;
  };
  LoggedStore store(folder.path, ops);
  roots = entryName(sampleKey(0).hash());
  store->setMostBytes(250'000);
  REQUIRE(store->publish(sampleKey(0), sampleArtifact(0, 900'000)).isOk());
  setUsed(entryFile(folder.path, sampleKey(0)), 100'000);
  for (int i = 1; i < 3; ++i) {
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i, 100'000)).isOk());
    setUsed(entryFile(folder.path, sampleKey(i)), 1000 * i);
  }
  CHECK(store->usage().entries == 3);
  REQUIRE(store->publish(sampleKey(3), sampleArtifact(3, 100'000)).isOk());
  CHECK(store->has(sampleKey(0)));
  CHECK(!store->has(sampleKey(2)));
  CHECK(store->counters().evicted == 1);
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
