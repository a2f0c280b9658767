// SPDX-License-Identifier: BSD-3-Clause
// What others can have written is never used (docs/security.md). Tests that need a second user run as root
// and say so where they can't.
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <functional>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fs = std::filesystem;
using namespace flashplus;
using namespace flashplus::test;

namespace {

constexpr uid_t kStranger = 12345, kOther = 23456;

/// False, with a word about it, where a test can't make files of another user.
bool canBeOthers(const char *test) {
  if (::geteuid() == 0)
    return true;
  MESSAGE("skipped, needs root: " << test);
  return false;
}

void give(const std::string &path, uid_t user) { REQUIRE(::lchown(path.c_str(), user, user) == 0); }

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

/// The exit status of `body` in a child that runs as `user`.
int runAs(uid_t user, const std::function<int()> &body) {
  const pid_t child = ::fork();
  if (child == 0)
    ::_exit(::setgid(user) == 0 && ::setuid(user) == 0 ? body() : 99);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/// A folder of the cache that holds sampleKey(0).
struct Filled {
  Filled() { REQUIRE(LoggedStore(dir).store->publish(sampleKey(), sampleArtifact(7)).isOk()); }
  TemporaryFolder folder;
  std::string dir = folder.path + "/cache";
  std::string entry = entryFile(dir, sampleKey()), shard = fs::path(entry).parent_path();
};

/// Reads sampleKey(): not a hit but untrusted, with one warning that has `why`; nothing is removed.
void checkUntrusted(LoggedStore &store, const std::string &why, const std::string &kept) {
  store.warnings->clear();
  const int64_t before = store->counters().untrusted;
  const ReadResult result = store->read(sampleKey());
  CHECK(result.miss == Miss::Untrusted);
  CHECK_FALSE(result.isHit());
  CHECK(store->counters().untrusted == before + 1);
  REQUIRE(store.warnings->size() == 1);
  CHECK_MESSAGE(contains(store.warnings->front(), why), store.warnings->front());
  CHECK(fs::exists(fs::symlink_status(kept)));
}

} // namespace

TEST_CASE(
    "what a stranger planted while the folder was open to all is not used after its mode was repaired") {
  if (!canBeOthers("what a stranger planted"))
    return;
  Filled cache;
  std::string kept = cache.entry;
  bool publishes = true;
  SUBCASE("the entry") { give(cache.entry, kStranger); }
  SUBCASE("the folder that the entry is in") {
    give(cache.shard, kStranger);
    publishes = false;
  }
  SUBCASE("both") {
    give(cache.shard, kStranger);
    give(cache.entry, kStranger);
    publishes = false;
  }
  LoggedStore store(cache.dir);
  CHECK(store->onDisk());
  checkUntrusted(store, "belongs to user 12345", kept);
  CHECK(store->verify().size() == 1);
  // The rebuild takes the place of an entry; a whole folder has to be removed by hand, and the message says
  // which.
  const Status published = store->publish(sampleKey(), sampleArtifact(8));
  CHECK(published.isOk() == publishes);
  if (publishes) {
    CHECK(store->counters().replaced == 1);
    CHECK(*store->read(sampleKey()).artifact == sampleArtifact(8));
  } else {
    CHECK_MESSAGE(contains(published.message(), cache.shard + "' belongs to user 12345"),
                  published.message());
    CHECK_FALSE(store->read(sampleKey()).isHit());
  }
}

TEST_CASE("a stranger's folder for temporaries is not written to") {
  if (!canBeOthers("a stranger's folder for temporaries"))
    return;
  Filled cache;
  give(cache.dir + "/tmp", kStranger);
  LoggedStore store(cache.dir);
  const Status status = store->publish(sampleKey(1), sampleArtifact());
  CHECK_MESSAGE(contains(status.message(), "/tmp' belongs to user 12345"), status.message());
  CHECK(store->read(sampleKey(1)).miss == Miss::Absent);
}

TEST_CASE("what others can write to is not used, and a rebuild takes its place") {
  Filled cache;
  SUBCASE("an entry that its group can write to") { ::chmod(cache.entry.c_str(), 0660); }
  SUBCASE("an entry that the world can write to") { ::chmod(cache.entry.c_str(), 0602); }
  SUBCASE("an entry with a second name") {
    fs::create_hard_link(cache.entry, cache.folder.path + "/elsewhere");
  }
  LoggedStore store(cache.dir);
  checkUntrusted(store, "it has ", cache.entry);
  REQUIRE(store->publish(sampleKey(), sampleArtifact(8)).isOk());
  CHECK(*store->read(sampleKey()).artifact == sampleArtifact(8));
}

TEST_CASE("a folder inside that others can write to, or that is a link, is not used") {
  Filled cache;
  std::string why;
  SUBCASE("open to all") {
    ::chmod(cache.shard.c_str(), 0777);
    why = "0777";
  }
  SUBCASE("a link to a folder of one's own") {
    fs::rename(cache.shard, cache.folder.path + "/elsewhere");
    fs::create_directory_symlink(cache.folder.path + "/elsewhere", cache.shard);
    why = "symbolic link";
  }
  LoggedStore store(cache.dir);
  checkUntrusted(store, why, cache.shard);
  CHECK_FALSE(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(store->verify().size() == (why == "0777")); // a link is not ours to look behind
}

TEST_CASE("a folder that is opened to all while it is in use is left alone, with one warning") {
  Filled cache;
  LoggedStore store(cache.dir);
  CHECK(store->read(sampleKey()).isHit());
  ::chmod(cache.dir.c_str(), 0777);
  checkUntrusted(store, "remove it with everything in it", cache.entry);
  CHECK(store->read(sampleKey()).miss == Miss::Untrusted);
  CHECK(store.warnings->size() == 1);
  CHECK_FALSE(store->publish(sampleKey(1), sampleArtifact()).isOk());
  CHECK(store->texts("tuning", ".json", {1, 1, 1}).empty());
}

TEST_CASE("a folder that is swapped under a store by who can write to its parent is not used") {
  Filled cache;
  ::chmod(cache.folder.path.c_str(), 0777);
  LoggedStore store(cache.dir);
  REQUIRE(store->read(sampleKey()).isHit());
  // The worst case: the other folder is right in owner and mode, and its entry of the same key is another.
  const std::string other = cache.folder.path + "/other";
  REQUIRE(LoggedStore(other).store->publish(sampleKey(), sampleArtifact(666)).isOk());
  REQUIRE(LoggedStore(other).store->publish(sampleKey(1), sampleArtifact(667)).isOk());
  fs::rename(cache.dir, cache.folder.path + "/old");
  SUBCASE("by another folder") { fs::rename(other, cache.dir); }
  SUBCASE("by a link") { fs::create_directory_symlink(other, cache.dir); }
  CHECK(*store->read(sampleKey()).artifact == sampleArtifact(7));
  CHECK(store->read(sampleKey(1)).miss == Miss::Absent);
}

TEST_CASE("a swapped folder of a stranger's, and one behind a stranger's link, are refused") {
  if (!canBeOthers("a swapped folder of a stranger's"))
    return;
  Filled cache;
  SUBCASE("the folder") {
    give(cache.dir, kStranger);
    LoggedStore store(cache.dir);
    CHECK_FALSE(store->onDisk());
    CHECK_MESSAGE(contains(store->reason(), "belongs to user 12345"), store->reason());
  }
  SUBCASE("a link among its parents") {
    const std::string link = cache.folder.path + "/link";
    fs::create_directory_symlink(cache.folder.path, link);
    CHECK(LoggedStore(link + "/cache").store->read(sampleKey()).isHit()); // root's own
    give(link, kStranger);
    LoggedStore store(link + "/cache");
    CHECK_FALSE(store->onDisk());
    CHECK_MESSAGE(contains(store->reason(), "symbolic link 'link', which belongs to user 12345"),
                  store->reason());
  }
}

TEST_CASE("links among the parents are followed as the system does") {
  Filled cache;
  const std::string &top = cache.folder.path;
  fs::create_directories(top + "/a/b");
  fs::create_symlink("../../a/./b//", top + "/a/b/relative");
  fs::create_symlink(top + "/a/b/relative/../../", top + "/absolute");
  CHECK(LoggedStore(top + "/absolute/cache").store->read(sampleKey()).isHit());
  fs::create_symlink("loop", top + "/loop");
  LoggedStore store(top + "/loop/cache");
  CHECK_MESSAGE(contains(store->reason(), "Too many levels of symbolic links"), store->reason());
}

TEST_CASE("root's folder that others can't write to is read by any user; another user's is not") {
  if (!canBeOthers("root's folder is read by any user"))
    return;
  Filled cache;
  for (const std::string &path : {cache.folder.path, cache.dir, cache.shard})
    ::chmod(path.c_str(), 0755);
  ::chmod(cache.entry.c_str(), 0644);
  const auto read = [&] {
    LoggedStore store(cache.dir);
    const ReadResult result = store->read(sampleKey());
    return result.isHit() ? 0 : store->onDisk() ? 1 : 2;
  };
  CHECK(runAs(kStranger, read) == 0);
  fs::create_hard_link(cache.entry, cache.folder.path + "/deduplicated"); // as images are
  CHECK(runAs(kStranger, read) == 0);
  give(cache.entry, kOther);
  CHECK(runAs(kStranger, read) == 1);
  give(cache.entry, kStranger);
  CHECK(runAs(kStranger, read) == 1); // its own by now, so a second name counts
  fs::remove(cache.folder.path + "/deduplicated");
  CHECK(runAs(kStranger, read) == 0);
  give(cache.dir, kOther);
  CHECK(runAs(kStranger, read) == 2);
  CHECK(read() == 2);
}

TEST_CASE("a process that closes all its descriptors keeps its cache, and the store closes nobody else's") {
  Filled cache;
  const int status = [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      LoggedStore store(cache.dir);
      if (!store->read(sampleKey()).isHit())
        ::_exit(1);
      for (int fd = 3; fd < 256; ++fd)
        ::close(fd);
      int files[64];
      for (int &fd : files) // some of which have the numbers that the store had
        fd = ::open("/dev/null", O_RDONLY);
      if (!store->read(sampleKey()).isHit() || !store->publish(sampleKey(1), sampleArtifact()).isOk())
        ::_exit(2);
      for (int fd = 3; fd < 256; ++fd)
        ::close(fd);
      for (int &fd : files)
        fd = ::open("/dev/null", O_RDONLY);
      store.store.reset();
      for (int fd : files)
        if (::fcntl(fd, F_GETFD) < 0)
          ::_exit(3);
      ::_exit(0);
    }
    int result = 0;
    ::waitpid(child, &result, 0);
    return result;
  }();
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("texts of another folder are read under the same rules and within limits") {
  Filled cache;
  const std::string folder = cache.dir + "/tuning";
  constexpr TextLimits kLimits{.file_bytes = 100, .files = 3, .all_bytes = 150};
  LoggedStore store(cache.dir);
  CHECK(store->texts("tuning", ".json", kLimits).empty());
  CHECK(store.warnings->empty());
  fs::create_directory(folder);
  ::chmod(folder.c_str(), 0755);
  const auto write = [&](const std::string &name, size_t size) {
    writeFile(folder + "/" + name, std::vector<uint8_t>(size, 'x'));
    ::chmod((folder + "/" + name).c_str(), 0644);
  };
  const auto names = [&] {
    store.warnings->clear();
    std::string all;
    for (const TextFile &file : store->texts("tuning", ".json", kLimits))
      all += fs::path(file.path).filename().string() + ":" + std::to_string(file.text.size()) + " ";
    return all;
  };
  write("b.json", 60);
  write("a.json", 60);
  write("note.txt", 1);
  CHECK(names() == "a.json:60 b.json:60 ");
  CHECK(store.warnings->empty());
  SUBCASE("too large") {
    write("0.json", 101);
    CHECK(names() == "a.json:60 b.json:60 ");
    REQUIRE(store.warnings->size() == 1);
    CHECK(contains(store.warnings->front(), "at most 100"));
  }
  SUBCASE("too much in all") {
    write("c.json", 31);
    CHECK(names() == "a.json:60 b.json:60 ");
    REQUIRE(store.warnings->size() == 1);
    CHECK(contains(store.warnings->front(), "more than 150 bytes"));
  }
  SUBCASE("too many") {
    write("c.json", 1);
    write("d.json", 1);
    CHECK(names() == "a.json:60 b.json:60 c.json:1 ");
    REQUIRE(store.warnings->size() == 1);
    CHECK(contains(store.warnings->front(), "more than 3 files"));
  }
  SUBCASE("writable by all") {
    ::chmod((folder + "/a.json").c_str(), 0666);
    CHECK(names() == "b.json:60 ");
    CHECK(store.warnings->size() == 1);
  }
  SUBCASE("a FIFO and a link") {
    ::mkfifo((folder + "/c.json").c_str(), 0600);
    fs::create_symlink("a.json", folder + "/d.json");
    CHECK(names() == "a.json:60 b.json:60 ");
    CHECK(store.warnings->size() == 2);
  }
  SUBCASE("in a folder open to all") {
    ::chmod(folder.c_str(), 0777);
    CHECK(names().empty());
    REQUIRE(store.warnings->size() == 1);
    CHECK(contains(store.warnings->front(), "remove it with everything in it"));
  }
}
