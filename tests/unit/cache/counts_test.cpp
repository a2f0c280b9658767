// SPDX-License-Identifier: BSD-3-Clause
// What processes did with a store, summed over all of them.
#include "tests/unit/cache/children.h"
#include "tests/unit/cache/support.h"

#include <doctest/doctest.h>

#include <cerrno>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace flashplus;
using namespace flashplus::test;

TEST_CASE("counts are a text that is read back exactly, and nothing else is read") {
  UsageCounts counts{.contexts = 3, .disk_hits = 4, .late_compiles = INT64_MAX, .since = 1000};
  const std::string text = counts.text();
  CHECK(UsageCounts::parse(text) == counts);
  for (size_t i = 0; i < text.size(); ++i) {
    std::string bad = text;
    bad[i] ^= 1;
    CHECK(UsageCounts::parse(bad) == std::nullopt);
    CHECK(UsageCounts::parse(text.substr(0, i)) == std::nullopt);
  }
  CHECK(UsageCounts().text().size() == text.size()); // it is written over
  counts.add(counts);
  CHECK(counts.disk_hits == 8);
  CHECK(counts.late_compiles == INT64_MAX);
  CHECK(counts.minus(counts).isNothing());
}

TEST_CASE("processes that count at the same time lose nothing") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      LoggedStore mine(folder.path);
      UsageCounts kept; // what could not be written is written with the next
      for (int n = 0; n < 50; ++n) {
        kept.add({.disk_hits = 1});
        if (mine->addCounts(kept, /*patient=*/false))
          kept = {};
      }
      while (!kept.isNothing())
        if (mine->addCounts(kept, /*patient=*/false))
          kept = {};
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(store->counts().value().disk_hits == 200);
  CHECK(filesBelow(folder.path) == std::vector<std::string>{"counts"});
  CHECK(store->list().empty());
}

TEST_CASE("counts are kept where they may be written and trusted, and a failure leaves what was there") {
  TemporaryFolder folder;
  LoggedStore store(folder.path);
  CHECK(store->counts() == std::nullopt);
  REQUIRE(store->addCounts({.compiles = 2}, true));
  auto reader = KernelStore::openReadOnly(folder.path, [](const std::string &) {});
  CHECK(!reader->addCounts({.compiles = 2}, true));
  CHECK(reader->counts().value().compiles == 2);
  CHECK(!LoggedStore(folder.path, plainOps(), KernelStore::Bad::Keep)->addCounts({.compiles = 2}, true));
  for (int at = 1;; ++at) {
    REQUIRE(at < 100);
    LoggedStore faulty(folder.path, faultyOps());
    fault() = {.kind = Fault::FailHalf, .at = at, .error = ENOSPC};
    const bool written = faulty->addCounts({.disk_hits = 1}, true);
    const std::string spoiled = fault().spoiled;
    fault() = {};
    REQUIRE(store->counts().has_value());
    if (written && spoiled.empty())
      break;
  }
  CHECK(store->counts().value().compiles == 2);
  REQUIRE(::chmod((folder.path + "/counts").c_str(), 0666) == 0);
  CHECK(store->counts() == std::nullopt);
  writeFile(folder.path + "/counts", {});
  REQUIRE(::chmod((folder.path + "/counts").c_str(), 0600) == 0);
  CHECK(store->addCounts({.compiles = 1}, true));
  CHECK(store->counts().value().compiles == 1);
  const std::vector<uint8_t> mine = {'m', 'i', 'n', 'e'};
  writeFile(folder.path + "/counts", mine);
  CHECK(!store->addCounts({.compiles = 1}, true)); // somebody's own file
  CHECK(readFile(folder.path + "/counts") == mine);
  const auto cleared = store->clear();
  CHECK(cleared.isOk());
  CHECK(std::filesystem::exists(folder.path + "/counts"));
}
