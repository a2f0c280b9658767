// SPDX-License-Identifier: BSD-3-Clause
// Every file operation of publish and read is made to fail, one after the other and from each one onwards. A
// run takes a twentieth of the ways to fail (each at every operation), in rotation, and a soak all:
// tests/soak.h.
#include "tests/soak.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <new>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flashplus;
using namespace flashplus::test;

namespace {

constexpr int kErrors[] = {EIO,    ENOSPC, EROFS, ESTALE, EACCES,  EDQUOT, EBUSY, EMFILE,
                           ENOENT, EPERM,  EINTR, ENOMEM, ENOTDIR, EISDIR, ENXIO, ELOOP};

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> leftovers(const std::string &dir) {
  std::vector<std::string> files = filesBelow(dir);
  std::erase_if(files, [](const std::string &name) { return !name.starts_with("tmp/"); });
  return files;
}

/// Runs `body(fault)` for every way to spoil its file operations, until none is left to spoil.
template <class Body>
void forEveryFault(Fault::Kind kind, bool onwards, bool no_links, int error, Body body) {
  for (int at = 1;; ++at) {
    REQUIRE(at < 400);
    Fault f = {.kind = kind, .at = at, .onwards = onwards, .error = error, .no_links = no_links};
    body(f);
    const int calls = fault().calls;
    fault() = {};
    if (calls < at)
      return;
  }
}

/// Whether this run takes the way to fail number `way`.
bool comes(int way) { return soak() || uint64_t(way) % 20 == turn() % 20; }

} // namespace

TEST_CASE("whatever fails in publish, a reader sees a whole entry or none") {
  int way = 0;
  for (Fault::Kind kind : {Fault::Fail, Fault::FailHalf}) {
    for (bool onwards : {false, true}) {
      for (bool no_links : {false, true}) {
        for (bool folders_exist : {false, true}) {
          for (int error : kErrors) {
            if (!comes(way++))
              continue;
            if (error == EINTR && (onwards || kind == Fault::FailHalf))
              continue; // Endless signals are retried without end; a write cut by one reports what it wrote.
            forEveryFault(kind, onwards, no_links, error, [&](const Fault &f) {
              TemporaryFolder folder;
              LoggedStore clean(folder.path);
              if (folders_exist) {
                REQUIRE(clean->publish(sampleKey(), sampleArtifact()).isOk());
                clean->discard(sampleKey(), "test");
              }
              clean.warnings->clear();
              LoggedStore faulty(folder.path, faultyOps());
              fault() = f;
              const Status status = faulty->publish(sampleKey(), sampleArtifact());
              const std::string spoiled = fault().spoiled;
              const int calls = fault().calls;
              fault() = {};
              fault().calls = calls;
              CAPTURE(spoiled);
              CAPTURE(errnoText(error));

              const ReadResult result = clean->read(sampleKey());
              REQUIRE(result.isHit() == status.isOk());
              REQUIRE(clean.warnings->empty()); // Absent is not damaged.
              if (result.isHit())
                REQUIRE(*result.artifact == sampleArtifact());
              REQUIRE(faulty->counters().publish_failures == (status ? 0 : 1));
              REQUIRE(faulty->counters().published == (status ? 1 : 0));
              if (!status) {
                REQUIRE(status.code() == StatusCode::IoError);
                REQUIRE(contains(status.message(), errnoText(error)));
                REQUIRE(contains(status.message(), sampleKey().hex()));
              }
              if (!contains(spoiled, "unlink"))
                REQUIRE(leftovers(folder.path).empty());
              // The disk recovers, and so does the cache.
              REQUIRE(clean->publish(sampleKey(), sampleArtifact()).isOk());
              REQUIRE(clean->read(sampleKey()).isHit());
            });
          }
        }
      }
    }
  }
}

TEST_CASE("failures that do not matter do not fail a publish") {
  // Cleaning up and making the name durable: unlink of the temporary, fsync of the folder.
  TemporaryFolder folder;
  LoggedStore clean(folder.path);
  REQUIRE(clean->publish(sampleKey(), sampleArtifact()).isOk());
  clean->discard(sampleKey(), "test");
  FileOps ops = plainOps();
  ops.unlink = [](int, const char *) {
    errno = EBUSY;
    return -1;
  };
  LoggedStore store(folder.path, ops);
  CHECK(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(leftovers(folder.path).empty()); // it has the entry's name by now
  CHECK(store->read(sampleKey()).isHit());
}

TEST_CASE("a publish is durable before it is visible") {
  TemporaryFolder folder;
  LoggedStore store(folder.path, faultyOps());
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  store->discard(sampleKey(), "test");
  fault() = {};
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  // The store's folder, "tmp", the file, the shard.
  CHECK(
      fault().trace ==
      "fstat mkdir open fstat open write fsync close mkdir open fstat rename_new unlink fsync "
      "list lstat close close "); // looks whether the shard is within its bounds
  store->discard(sampleKey(), "test");
  fault() = {.no_rename_new = true};
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  CHECK(fault().trace == "fstat mkdir open fstat open write fsync close mkdir open fstat rename_new link "
                         "unlink fsync list lstat close close ");
  fault() = {};
  REQUIRE(store->read(sampleKey()).isHit());
  CHECK(fault().trace == "fstat open fstat open fstat read close close ");
}

TEST_CASE("short writes and reads are continued") {
  for (bool onwards : {false, true}) {
    forEveryFault(Fault::Short, onwards, false, 0, [&](const Fault &f) {
      TemporaryFolder folder;
      LoggedStore store(folder.path, faultyOps());
      fault() = f;
      REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
      const ReadResult result = store->read(sampleKey());
      REQUIRE(result.isHit());
      REQUIRE(*result.artifact == sampleArtifact());
    });
  }
}

TEST_CASE("signals interrupt nothing") {
  for (const char *operation : {"open", "read", "write", "fsync"}) {
    CAPTURE(operation);
    bool was_spoiled = false;
    forEveryFault(Fault::Fail, false, false, EINTR, [&](const Fault &f) {
      TemporaryFolder folder;
      LoggedStore store(folder.path, faultyOps());
      fault() = f;
      const Status status = store->publish(sampleKey(), sampleArtifact());
      const ReadResult result = store->read(sampleKey());
      if (fault().spoiled != std::string(operation) + " ")
        return;
      was_spoiled = true;
      REQUIRE(status.isOk());
      REQUIRE(result.isHit());
    });
    CHECK(was_spoiled);
  }
}

TEST_CASE("whatever fails in read is a miss with one warning at most, and a rebuild comes back") {
  int way = 0;
  for (bool damaged : {false, true}) {
    for (bool onwards : {false, true}) {
      for (int error : kErrors) {
        if (!comes(way++))
          continue;
        if (onwards && error == EINTR)
          continue;
        forEveryFault(Fault::Fail, onwards, false, error, [&](const Fault &f) {
          TemporaryFolder folder;
          LoggedStore clean(folder.path);
          REQUIRE(clean->publish(sampleKey(), sampleArtifact()).isOk());
          const std::string path = entryFile(folder.path, sampleKey());
          if (damaged) {
            std::vector<uint8_t> bytes = readFile(path);
            bytes[bytes.size() / 2] ^= 1;
            writeFile(path, bytes);
          }
          LoggedStore faulty(folder.path, faultyOps());
          fault() = f;
          const ReadResult result = faulty->read(sampleKey());
          const std::string spoiled = fault().spoiled;
          const int calls = fault().calls;
          fault() = {};
          fault().calls = calls;
          CAPTURE(spoiled);
          CAPTURE(errnoText(error));

          if (result.isHit()) {
            REQUIRE_FALSE(damaged);
            REQUIRE(*result.artifact == sampleArtifact());
            REQUIRE(faulty.warnings->empty());
          } else {
            REQUIRE(result.miss != Miss::None);
            REQUIRE(faulty.warnings->size() == (result.miss == Miss::Absent ? 0u : 1u));
          }
          // A good file is not thrown away because the process ran out of handles, say, or the disk had a bad
          // moment.
          if (!damaged)
            REQUIRE(clean->read(sampleKey()).isHit());
          clean->read(sampleKey());
          REQUIRE(clean->publish(sampleKey(), sampleArtifact()).isOk());
          REQUIRE(*clean->read(sampleKey()).artifact == sampleArtifact());
        });
      }
    }
  }
}

TEST_CASE("a read-only folder gives hits, and a publish that fails softly") {
  TemporaryFolder folder;
  REQUIRE(LoggedStore(folder.path).store->publish(sampleKey(), sampleArtifact()).isOk());
  FileOps ops = plainOps();
  ops.open = [](int dir, const char *name, int flags, mode_t mode) {
    if ((flags & 3) == 0)
      return plainOps().open(dir, name, flags, mode);
    errno = EROFS;
    return -1;
  };
  LoggedStore store(folder.path, ops);
  CHECK(store->onDisk());
  CHECK(store->read(sampleKey()).isHit());
  const Status status = store->publish(sampleKey(1), sampleArtifact(1));
  CHECK(status.code() == StatusCode::IoError);
  CHECK(contains(status.message(), "Read-only"));
  CHECK(store.warnings->empty());
}

TEST_CASE("what cannot be read is kept, whatever the system says; a damaged entry is kept by who can rebuild "
          "nothing") {
  TemporaryFolder folder;
  REQUIRE(LoggedStore(folder.path).store->publish(sampleKey(), sampleArtifact()).isOk());
  for (int error : kErrors) {
    if (error == ENOENT || error == EINTR)
      continue;
    forEveryFault(Fault::Fail, false, false, error, [&](const Fault &f) {
      LoggedStore faulty(folder.path, faultyOps());
      fault() = f;
      const ReadResult result = faulty->read(sampleKey());
      const std::string spoiled = fault().spoiled;
      CAPTURE(spoiled);
      CAPTURE(errnoText(error));
      const bool matters = !spoiled.empty() && spoiled != "close ";
      REQUIRE(result.miss == (matters ? Miss::Unreadable : Miss::None));
      REQUIRE(faulty->counters().damaged == 0);
    });
    REQUIRE(LoggedStore(folder.path).store->read(sampleKey()).isHit());
  }
  // A file that ends before its size was not read whole.
  FileOps ops = plainOps();
  ops.read = [](int, void *, size_t) -> ssize_t { return 0; };
  CHECK(LoggedStore(folder.path, ops).store->read(sampleKey()).miss == Miss::Unreadable);
  REQUIRE(LoggedStore(folder.path).store->read(sampleKey()).isHit());

  const std::string path = entryFile(folder.path, sampleKey());
  std::vector<uint8_t> bytes = readFile(path);
  bytes.back() ^= 1;
  writeFile(path, bytes);
  LoggedStore offline(folder.path, plainOps(), KernelStore::Bad::Keep);
  for (int i = 0; i < 2; ++i)
    CHECK(offline->read(sampleKey()).miss == Miss::Damaged);
  offline->discard(sampleKey(), "test");
  CHECK(readFile(path) == bytes);
  CHECK(offline->counters().discarded == 0);
  CHECK(LoggedStore(folder.path).store->read(sampleKey()).miss == Miss::Damaged);
  CHECK(LoggedStore(folder.path).store->read(sampleKey()).miss == Miss::Absent);
}

TEST_CASE("a folder that can't be listed is a problem, not an empty folder") {
  TemporaryFolder folder;
  FileOps ops = plainOps();
  LoggedStore store(folder.path, ops);
  REQUIRE(store->publish(sampleKey(), sampleArtifact()).isOk());
  ops.list = [](int, std::vector<std::string> &) {
    errno = EIO;
    return -1;
  };
  LoggedStore blind(folder.path, ops);
  REQUIRE(blind->verify().size() == 1);
  CHECK(contains(blind->verify()[0].problem, "cannot be listed"));
  CHECK_FALSE(blind->clear().isOk());
  CHECK(store->verify().empty());
}

TEST_CASE("whatever fails while a store is looked through, nothing good is removed and nothing else breaks") {
  int way = 0;
  for (bool onwards : {false, true})
    for (int error : kErrors) {
      if (!comes(way++) || (onwards && error == EINTR))
        continue;
      forEveryFault(Fault::Fail, onwards, false, error, [&](const Fault &f) {
        TemporaryFolder folder;
        LoggedStore clean(folder.path);
        for (int i : {0, 1, 2})
          REQUIRE(clean->publish(sampleKey(i), sampleArtifact(i)).isOk());
        writeFile(entryFile(folder.path, sampleKey(2)), std::vector<uint8_t>(9, 'x'));
        ::mkdir((folder.path + "/tuning").c_str(), 0700);
        writeFile(folder.path + "/tuning/a.json", std::vector<uint8_t>(2, '{'));
        LoggedStore faulty(folder.path, faultyOps());
        fault() = f;
        (void)faulty->isThere();
        (void)faulty->list();
        (void)faulty->verify();
        (void)faulty->usage();
        (void)faulty->has(sampleKey());
        (void)faulty->texts("tuning", ".json", {100, 10, 1000});
        const auto pruned = faulty->prune({.most_bytes = int64_t(1) << 30, .used_since = 0});
        const std::string spoiled = fault().spoiled;
        const int calls = fault().calls;
        fault() = {};
        fault().calls = calls;
        CAPTURE(spoiled);
        CAPTURE(errnoText(error));
        if (pruned)
          REQUIRE(pruned->entries == 0);
        for (int i : {0, 1})
          REQUIRE(clean->read(sampleKey(i)).isHit());
        REQUIRE(clean->read(sampleKey(2)).miss == Miss::Damaged);
        REQUIRE(clean->texts("tuning", ".json", {100, 10, 1000}).size() == 1);
      });
    }
}

TEST_CASE("limits of the process fail softly: no descriptors, no file sizes, no memory to speak of") {
  TemporaryFolder folder;
  REQUIRE(LoggedStore(folder.path)->publish(sampleKey(), sampleArtifact()).isOk());
  const auto sweep = [&](int resource, rlim_t from, rlim_t to, rlim_t step) {
    int crashed = 0;
    for (rlim_t limit = from; limit <= to; limit += step) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(20);
        const rlimit lower{limit, limit};
        ::setrlimit(resource, &lower);
        try {
          LoggedStore store(folder.path);
          (void)store->read(sampleKey());
          (void)store->publish(sampleKey(1), sampleArtifact(1));
          (void)store->list();
          store->discard(sampleKey(1), "test");
        } catch (const std::bad_alloc &) { // the test's own lists
        }
        ::_exit(0);
      }
      int status = 0;
      REQUIRE(::waitpid(child, &status, 0) == child);
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        ++crashed;
        MESSAGE("resource " << resource << " limited to " << limit << ": status " << status);
      }
    }
    CHECK(crashed == 0);
    LoggedStore after(folder.path);
    CHECK(after->read(sampleKey()).isHit());
    CHECK(after->verify().empty());
    CHECK(after->publish(sampleKey(1), sampleArtifact(1)).isOk());
    CHECK(after->read(sampleKey(1)).isHit());
    after->discard(sampleKey(1), "test");
  };
  SUBCASE("descriptors") { sweep(RLIMIT_NOFILE, 0, 12, 1); }
  SUBCASE("sizes of files") { sweep(RLIMIT_FSIZE, 0, 700, soak() ? 1 : 37); }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  SUBCASE("memory") {
    std::ifstream pages("/proc/self/statm");
    rlim_t mapped = 0;
    pages >> mapped;
    const rlim_t now = mapped * rlim_t(::sysconf(_SC_PAGESIZE));
    sweep(RLIMIT_AS, now, now + (1 << 20), soak() ? 4096 : 128 * 1024);
  }
#endif
}
