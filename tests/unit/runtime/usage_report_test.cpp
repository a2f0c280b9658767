// SPDX-License-Identifier: BSD-3-Clause
// What a context does is added to the counts of its cache, once, whatever becomes of it.
#include "runtime/kernels/usage_report.h"

#include "tests/tools/temporary.h"
#include "tests/unit/cache/children.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

using namespace flashplus;
using namespace std::chrono_literals;
using flashplus::test::startChild;
using flashplus::test::TemporaryFolder;
using flashplus::test::waitAtMost;

namespace {

struct Counting {
  explicit Counting(const std::string &dir)
      : store(KernelStore::open(dir, [](const std::string &) {})),
        report(std::make_unique<UsageReport>(*store, counters)) {}
  std::unique_ptr<KernelStore> store;
  KernelCounters counters;
  std::unique_ptr<UsageReport> report;
};

} // namespace

TEST_CASE("counts are written once a second at most, when asked for, and at the end, and each once") {
  TemporaryFolder folder;
  Counting c(folder.path());
  c.report->write(false);
  CHECK(!c.store->counts()); // it has done nothing
  c.counters.disk_hits = 3;
  for (int i = 0; i < 100; ++i)
    c.report->workDone(); // in the first second
  CHECK(!c.store->counts());
  c.report->write(false);
  c.report->write(false);
  REQUIRE(c.store->counts());
  CHECK(c.store->counts()->disk_hits == 3);
  CHECK(c.store->counts()->contexts == 1);
  c.counters.compiles = 2;
  c.counters.memory_hits += 5;
  c.report.reset();
  CHECK(c.store->counts()->disk_hits == 3);
  CHECK(c.store->counts()->compiles == 2);
  CHECK(c.store->counts()->memory_hits == 5);
  CHECK(c.store->counts()->contexts == 1);
}

TEST_CASE("a child of a fork adds what it did itself, also if it exits without destroying anything") {
  TemporaryFolder folder;
  Counting c(folder.path());
  c.counters.disk_hits = 3; // not written yet
  std::fflush(nullptr);
  const pid_t child = startChild([&] {
    c.counters.disk_hits += 10;
    std::exit(0);
    return 1;
  });
  CHECK(waitAtMost(child, 20s) == 0);
  REQUIRE(c.store->counts());
  CHECK(c.store->counts()->disk_hits == 10);
  c.report.reset();
  CHECK(c.store->counts()->disk_hits == 13);
}

TEST_CASE("a store that is only read, or in memory, is not counted") {
  TemporaryFolder folder;
  KernelCounters counters;
  counters.disk_hits = 1;
  const auto memory = KernelStore::open("", [](const std::string &) {}),
             reader = KernelStore::openReadOnly(folder.path(), [](const std::string &) {});
  for (KernelStore *store : {memory.get(), reader.get()})
    UsageReport(*store, counters).write(true);
  CHECK(folder.entries().empty());
}
