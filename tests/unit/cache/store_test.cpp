// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <thread>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace fs = std::filesystem;
using namespace flashplus;
using namespace flashplus::test;

namespace {

void makeSocket(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(fd >= 0);
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0);
  ::close(fd);
}

} // namespace

TEST_CASE("what is published is read back, in this and in another store") {
  TemporaryFolder folder;
  const std::string dir = folder.path + "/a/b/cache";
  LoggedStore store(dir);
  CHECK(store->onDisk());
  CHECK(store->read(sampleKey()).miss == Miss::Absent);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  ReadResult hit = store->read(sampleKey());
  REQUIRE(hit.isHit());
  CHECK(*hit.artifact == sampleArtifact());
  CHECK(LoggedStore(dir + "//").store->read(sampleKey()).isHit());
  CHECK(store->read(sampleKey(1)).miss == Miss::Absent);
  CHECK(store.warnings->empty());

  struct stat info = {};
  ::stat(dir.c_str(), &info);
  CHECK((info.st_mode & 07777) == 0700);
  ::stat(entryFile(dir, sampleKey()).c_str(), &info);
  CHECK((info.st_mode & 07777) == 0600);
  const std::string hex = sampleKey().hex();
  CHECK(filesBelow(dir) == std::vector<std::string>{hex.substr(0, 2) + "/" + hex + ".fpk"});

  const StoreCounters counters = store->counters();
  CHECK(counters.hits == 1);
  CHECK(counters.absent == 2);
  CHECK(counters.published == 1);
}

TEST_CASE("the first writer wins") {
  for (bool no_links : {false, true}) {
    fault() = {.no_links = no_links};
    TemporaryFolder folder;
    LoggedStore store(folder.path, faultyOps());
    REQUIRE(store->publish(sampleKey(), sampleArtifact(1)).isOk());
    REQUIRE(store->publish(sampleKey(), sampleArtifact(2)).isOk());
    CHECK(*store->read(sampleKey()).artifact == sampleArtifact(1));
    CHECK(store->counters().published == 1);
    CHECK(store->counters().already_there == 1);
    CHECK(filesBelow(folder.path).size() == 1);
  }
}

TEST_CASE("a folder moved elsewhere, or mounted read-only, still hits") {
  TemporaryFolder folder;
  LoggedStore(folder.path + "/old").store->publish(sampleKey(), sampleArtifact()).isOk();
  fs::rename(folder.path + "/old", folder.path + "/new");
  fault() = {.kind = Fault::Off};
  LoggedStore store(folder.path + "/new", faultyOps());
  CHECK(store->read(sampleKey()).isHit());
}

TEST_CASE("a damaged entry is one warning and a miss, and a rebuild takes its place") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  const std::string path = entryFile(folder.path, sampleKey());
  const std::vector<uint8_t> good = readFile(path);
  int64_t damages = 0;
  const auto checkDamaged = [&](EntryError expected) {
    store.warnings->clear();
    ReadResult result = store->read(sampleKey());
    REQUIRE(result.miss == Miss::Damaged);
    REQUIRE_FALSE(result.isHit());
    if (expected != EntryError::None)
      REQUIRE(result.entry_error == expected);
    REQUIRE(store.warnings->size() == 1);
    REQUIRE(store->counters().damaged == ++damages);
    REQUIRE_FALSE(fs::exists(fs::symlink_status(path)));
    REQUIRE(store->read(sampleKey()).miss == Miss::Absent);
  };

  SUBCASE("every byte flipped") {
    for (size_t i = 0; i < good.size(); ++i) {
      std::vector<uint8_t> bad = good;
      bad[i] ^= 0x55;
      writeFile(path, bad);
      checkDamaged(EntryError::None);
    }
  }
  SUBCASE("cut at every length") {
    for (size_t size = 0; size < good.size(); ++size) {
      writeFile(path, std::span(good).first(size));
      checkDamaged(EntryError::Truncated);
    }
  }
  SUBCASE("the entry of another key under this name") {
    writeFile(path, encodeEntry(sampleKey(1), sampleArtifact(1)));
    checkDamaged(EntryError::OtherKey);
  }
  SUBCASE("a symbolic link, even to a good entry") {
    writeFile(folder.path + "/elsewhere", good);
    fs::remove(path);
    fs::create_symlink(folder.path + "/elsewhere", path);
    checkDamaged(EntryError::None);
    CHECK(fs::exists(folder.path + "/elsewhere"));
  }
  SUBCASE("a FIFO, without waiting for it") {
    fs::remove(path);
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    checkDamaged(EntryError::None);
  }
  SUBCASE("a socket") {
    fs::remove(path);
    makeSocket(path);
    checkDamaged(EntryError::None);
  }
  SUBCASE("a folder, which keeps what is in it") {
    fs::remove(path);
    fs::create_directory(path);
    writeFile(path + "/thesis.tex", good);
    checkDamaged(EntryError::None);
    const std::vector<std::string> left = filesBelow(folder.path);
    CHECK(std::ranges::count_if(left, [](const std::string &name) {
            return name.find(".fpk.aside-") != std::string::npos && name.ends_with("/thesis.tex");
          }) == 1);
  }
  SUBCASE("a folder without rights") {
    fs::remove(path);
    fs::create_directory(path);
    fs::permissions(path, fs::perms::none);
    checkDamaged(EntryError::None);
  }
  SUBCASE("a file above the limit, without reading it") {
    fs::resize_file(path, static_cast<uintmax_t>(KernelStore::kMaxEntryBytes) + 1);
    checkDamaged(EntryError::None);
  }
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(store->read(sampleKey()).isHit());
}

TEST_CASE("something else in an entry's or a folder's place makes room when an entry is written") {
  TemporaryFolder folder;
  const std::string entry = entryFile(folder.path, sampleKey()),
                    shard = fs::path(entry).parent_path().string(), temporary = folder.path + "/tmp";
  REQUIRE(LoggedStore(folder.path)->publish(sampleKey(), sampleArtifact()).isOk());
  for (const std::string &place : {temporary, shard, entry})
    for (int kind = 0; kind < 5; ++kind) {
      const bool is_entry = place == entry;
      if (kind == 4 && !is_entry)
        continue; // a folder is what should be there
      CAPTURE(place);
      CAPTURE(kind);
      fs::remove_all(place);
      if (kind == 0)
        writeFile(place, std::vector<uint8_t>(3, 'x'));
      if (kind == 1)
        REQUIRE(::mkfifo(place.c_str(), 0600) == 0);
      if (kind == 2)
        makeSocket(place);
      if (kind == 3)
        fs::create_symlink("/nowhere", place);
      if (kind == 4)
        fs::create_directories(place + "/kept");
      LoggedStore store(folder.path);
      const Status published = store->publish(sampleKey(), sampleArtifact());
      if (kind == 3 && !is_entry) { // somebody's link is left
        CHECK_FALSE(published.isOk());
        fs::remove(place);
        continue;
      }
      CHECK_MESSAGE(published.isOk(), published.message());
      CHECK(store->read(sampleKey()).isHit());
      CHECK(LoggedStore(folder.path)->verify().empty());
    }
  CHECK(std::ranges::any_of(fs::recursive_directory_iterator(folder.path),
                            [](const fs::directory_entry &e) { return e.path().filename() == "kept"; }));
}

TEST_CASE("two entries that swapped names both miss and both come back") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  for (int i : {0, 1})
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i)).isOk());
  const std::string a = entryFile(folder.path, sampleKey(0)), b = entryFile(folder.path, sampleKey(1));
  fs::rename(a, folder.path + "/t");
  fs::rename(b, a);
  fs::rename(folder.path + "/t", b);
  CHECK(store->verify().size() == 2);
  for (int i : {0, 1}) {
    const ReadResult result = store->read(sampleKey(i));
    CHECK(result.miss == Miss::Damaged);
    CHECK(result.entry_error == EntryError::OtherKey);
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i)).isOk());
    CHECK(*store->read(sampleKey(i)).artifact == sampleArtifact(i));
  }
}

TEST_CASE("an entry that is of no use can be discarded and published again") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  REQUIRE(store->publish(sampleKey(), sampleArtifact(1)).isOk());
  store->discard(sampleKey(), "the driver refuses it");
  REQUIRE(store.warnings->size() == 1);
  CHECK(store.warnings->front().find("the driver refuses it") != std::string::npos);
  CHECK(store->read(sampleKey()).miss == Miss::Absent);
  REQUIRE(store->publish(sampleKey(), sampleArtifact(2)).isOk());
  CHECK(*store->read(sampleKey()).artifact == sampleArtifact(2));
}

TEST_CASE("a folder that cannot be trusted or made means memory only, with one warning") {
  TemporaryFolder folder;
  std::string dir = folder.path + "/cache";
  std::string expected;
  FileOps ops = systemFileOps();
  SUBCASE("writable by the world") {
    fs::create_directory(dir);
    ::chmod(dir.c_str(), 0777);
    expected = "0777";
  }
  SUBCASE("writable by its group") {
    fs::create_directory(dir);
    ::chmod(dir.c_str(), 0770);
    expected = "0770";
  }
  SUBCASE("of another owner") {
    fs::create_directory(dir);
    ops.fstat = [](int fd, struct stat *out) {
      const int result = systemFileOps().fstat(fd, out);
      out->st_uid = ::geteuid() + 1;
      return result;
    };
    expected = "belongs to user";
  }
  SUBCASE("a symbolic link") {
    fs::create_directory(folder.path + "/real");
    ::chmod((folder.path + "/real").c_str(), 0700);
    fs::create_symlink(folder.path + "/real", dir);
    dir += "/";
    expected = "symbolic link";
  }
  SUBCASE("a file") {
    std::ofstream(dir) << "x";
    expected = "not a directory";
  }
  SUBCASE("below a file") {
    std::ofstream(dir) << "x";
    dir += "/below";
    expected = "Not a directory";
  }
  SUBCASE("on a read-only disk") {
    ops.mkdir = [](int, const char *, mode_t) {
      errno = EROFS;
      return -1;
    };
    expected = "Read-only";
  }
  LoggedStore store(dir, ops);
  CHECK_FALSE(store->onDisk());
  REQUIRE(store.warnings->size() == 1);
  CHECK_MESSAGE(store->reason().find(expected) != std::string::npos, store->reason());
  // `chmod` would make a folder look right that others have written to.
  CHECK(store.warnings->front().find("chmod") == std::string::npos);
  if (expected.starts_with("0") || expected == "belongs to user")
    CHECK(store.warnings->front().find("remove it with everything in it") != std::string::npos);
  CHECK(store.warnings->front().find(dir.substr(0, dir.size() - 1)) != std::string::npos);
  CHECK(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(store->read(sampleKey()).miss == Miss::MemoryOnly);
  CHECK(store->list().empty());
  CHECK(store->clear().isOk());
  CHECK(store.warnings->size() == 1);
}

TEST_CASE("no folder asked for is memory only without a warning") {
  LoggedStore store("");
  CHECK_FALSE(store->onDisk());
  CHECK(store.warnings->empty());
}

TEST_CASE("list, usage, verify and clear see our entries and nothing else") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  for (int i = 0; i < 5; ++i)
    REQUIRE(store->publish(sampleKey(i), sampleArtifact(i)).isOk());
  const std::string hex = sampleKey(0).hex(), shard = folder.path + "/" + hex.substr(0, 2);
  const std::vector<std::string> ours = filesBelow(folder.path);

  // What a user may have there, some of it deceptively named.
  fs::create_directory(folder.path + "/zz");
  fs::create_directory(folder.path + "/elsewhere");
  std::vector<std::string> foreign = {"thesis.tex",
                                      "zz/" + hex + ".fpk",
                                      hex.substr(0, 2) + "/notes.fpk",
                                      hex.substr(0, 2) + "/" + hex + ".fpk.bak",
                                      "tmp/keep.tmp",
                                      "elsewhere/" + std::string(32, 'e') + ".fpk",
                                      hex + ".fpk",
                                      "tmp/12-0123456789abcdeX.tmp"};
  foreign.push_back(hex.substr(0, 2) + "/" + (hex[0] == '0' ? "11" : "00") + hex.substr(2) + ".fpk");
  for (const std::string &name : foreign)
    std::ofstream(folder.path + "/" + name) << "x";
  REQUIRE_FALSE(fs::exists(folder.path + "/ee"));
  fs::create_directory_symlink(folder.path + "/elsewhere", folder.path + "/ee");
  foreign.push_back("ee");
  // What a killed writer left: one long ago, one just now.
  const std::string stale = "tmp/12-0123456789abcdef.tmp", fresh = "tmp/13-0123456789abcdef.tmp";
  for (const std::string &name : {stale, fresh})
    std::ofstream(folder.path + "/" + name) << "x";
  fs::last_write_time(folder.path + "/" + stale, fs::file_time_type::clock::now() - std::chrono::hours(2));

  std::vector<EntryInfo> entries = store->list();
  REQUIRE(entries.size() == 5);
  int64_t bytes = 0;
  for (const EntryInfo &entry : entries) {
    CHECK(entry.isGood());
    CHECK(entry.key.hex() == entry.name);
    CHECK(entry.key.target == "sm_80@sm_90");
    CHECK(entry.kind == CodeKind::Cubin);
    CHECK(entry.provenance.starts_with("LLVM 22.1.8, sample "));
    CHECK(entry.modified > 1'600'000'000);
    CHECK(entry.bytes == static_cast<int64_t>(fs::file_size(entry.path)));
    bytes += entry.bytes;
  }
  CHECK(store->usage().entries == 5);
  CHECK(store->usage().bytes == bytes);
  CHECK(store->verify().empty());

  const std::string damaged = entryFile(folder.path, sampleKey(3));
  fs::resize_file(damaged, 100);
  const std::vector<EntryInfo> bad = store->verify();
  REQUIRE(bad.size() == 1);
  CHECK(bad[0].path == damaged);
  CHECK(bad[0].error == EntryError::Truncated);
  CHECK(fs::exists(damaged));

  Result<StoreUsage> removed = store->clear();
  REQUIRE(removed.isOk());
  CHECK(removed->entries == 5);
  CHECK(store->list().empty());
  foreign.push_back(fresh);
  std::ranges::sort(foreign);
  CHECK(filesBelow(folder.path) == foreign);
  CHECK(fs::exists(folder.path + "/elsewhere/" + std::string(32, 'e') + ".fpk"));
}

TEST_CASE("a folder deleted under the store is made again") {
  TemporaryFolder folder;
  LoggedStore store(folder.path + "/cache");
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  fs::remove_all(folder.path + "/cache");
  CHECK(store->read(sampleKey()).miss == Miss::Absent);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(store->read(sampleKey()).isHit());
  struct stat info = {};
  ::stat((folder.path + "/cache").c_str(), &info);
  CHECK((info.st_mode & 07777) == 0700);
}

TEST_CASE("threads share a store") {
  TemporaryFolder folder;
  std::atomic<int> warnings{0}, wrong{0};
  auto store = KernelStore::open(folder.path, [&](const std::string &) { ++warnings; });
  constexpr int kThreads = 8, kKeys = 16;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < kKeys; ++i) {
          if (!store->publish(sampleKey(i), sampleArtifact(i, 5000)))
            ++wrong;
          ReadResult result = store->read(sampleKey(i));
          if (!result.isHit() || *result.artifact != sampleArtifact(i, 5000))
            ++wrong;
        }
      });
  }
  CHECK(wrong == 0);
  CHECK(warnings == 0);
  const StoreCounters counters = store->counters();
  CHECK(counters.published == kKeys);
  CHECK(counters.already_there == kKeys * (kThreads - 1));
  CHECK(counters.hits == kKeys * kThreads);
}

TEST_CASE("better code takes the place of what is there, and nothing else does") {
  const auto artifact = [](CodeKind kind, int major, int minor) {
    Artifact a = sampleArtifact(major * 100 + minor);
    a.kind = kind;
    a.assembler = {kind == CodeKind::Ptx ? Assembler::Kind::None : Assembler::Kind::Ptxas, major, minor};
    if (kind == CodeKind::Ptx)
      std::ranges::replace(a.code, uint8_t(0), uint8_t(1));
    return a;
  };
  // From worst to best.
  const std::vector<Artifact> ranked = {artifact(CodeKind::Ptx, 0, 0), artifact(CodeKind::Cubin, 0, 0),
                                        artifact(CodeKind::Cubin, 12, 9), artifact(CodeKind::Cubin, 13, 0),
                                        artifact(CodeKind::Cubin, 13, 10)};
  for (bool no_links : {false, true})
    for (size_t there = 0; there < ranked.size(); ++there)
      for (size_t given = 0; given < ranked.size(); ++given) {
        CHECK(isBetter(ranked[given], ranked[there]) == (given > there));
        fault() = {.no_links = no_links};
        TemporaryFolder folder;
        LoggedStore store(folder.path, faultyOps());
        REQUIRE(store->publish(sampleKey(), ranked[there]).isOk());
        REQUIRE(store->publish(sampleKey(), ranked[given]).isOk());
        CHECK(*store->read(sampleKey()).artifact == ranked[std::max(there, given)]);
        CHECK(store->counters().replaced == (given > there));
        CHECK(store->counters().already_there == (given <= there));
        CHECK(filesBelow(folder.path).size() == 1);
      }
  fault() = {};
}
