// SPDX-License-Identifier: BSD-3-Clause
// What a kernel table keeps of kernels that do not compile.
#include "tests/unit/runtime/kernel_table_fixture.h"

#include "cache/directory.h"
#include "tests/tools/temporary.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <sys/stat.h>
#include <thread>

using namespace flashplus;
using namespace flashplus::kernel_table_test;
using flashplus::test::TemporaryFolder;

namespace {

/// A table over the folder whose compiler fails so, and whose assemblers are these.
struct Refusing : Fixture {
  Refusing(const std::string &dir, Status failure, std::optional<std::string> toolchain = "ptxas 13.0",
           bool offline = false)
      : Fixture(dir, offline) {
    this->failure = std::move(failure);
    table.rememberRefusals([toolchain](const Target &) { return toolchain; });
  }
  Status compile() { return table.code(sampleKernel(), kTarget).status(); }
};

const Status kSpills(StatusCode::CompileFailed, "the schedule spills");

} // namespace

TEST_CASE("what the compiler refuses is not tried again, by any process, with the same assemblers") {
  TemporaryFolder folder;
  Refusing first(folder.path("cache"), kSpills);
  CHECK(first.compile().message() == "the schedule spills");
  for (int i = 0; i < 2; ++i) {
    Refusing f(folder.path("cache"), Status::ok());
    const Status again = f.compile();
    CHECK(again.code() == StatusCode::CompileFailed);
    CHECK(again.message().starts_with("the schedule spills (so it was when it was compiled before"));
    CHECK(f.compiles == 0);
    CHECK(f.events.empty());
  }
  Refusing other(folder.path("cache"), Status::ok(), "ptxas 13.1"); // as another build has another key
  CHECK(other.compile().isOk());
  CHECK(other.compiles == 1);
}

TEST_CASE("refusals are listed, and forgotten as kernels are removed: all, the old, those of other builds") {
  TemporaryFolder folder;
  const std::string dir = folder.path("cache");
  Refusing first(dir, kSpills);
  KernelStore &store = *first.store;
  const auto refuse = [&] {
    Refusing f(dir, kSpills);
    CHECK(!f.compile());
    REQUIRE(store.refusals().size() == 1);
  };
  const auto removed = [&](const Result<StoreUsage> &what) { return what ? what->refusals : -1; };
  refuse();
  const RefusalInfo known = store.refusals()[0];
  CHECK(known.key == KernelTable::keyOf(sampleKernel(), kTarget));
  CHECK(known.path == dir + "/refused/" + known.key.hex() + ".txt");
  CHECK(known.bytes == int64_t(std::filesystem::file_size(known.path)));
  CHECK(known.noted > ::time(nullptr) - 60);
  CHECK(known.refusal.toolchain == "ptxas 13.0");
  CHECK(known.refusal.reason == "the schedule spills");
  const auto file = [&](char digit) { return dir + "/refused/" + std::string(32, digit) + ".txt"; };
  test::writeText(file('a'), test::readText(known.path)); // another's name
  test::writeText(file('b'), "damaged");
  test::writeText(dir + "/refused/notes.txt", "mine");
  CHECK(store.refusals().size() == 1);
  CHECK(store.usage().entries == 0);

  CHECK(removed(store.prune({.most_bytes = 1 << 20, .used_since = 1, .build = known.key.build})) == 0);
  CHECK(removed(store.prune({.build = "another", .only_count = true})) == 2);
  CHECK(store.refusals().size() == 1);
  CHECK(removed(store.prune({.build = "another"})) == 2); // what is damaged stays, as with kernels
  refuse();
  const timespec old[2] = {{1, 0}, {1, 0}};
  REQUIRE(utimensat(AT_FDCWD, known.path.c_str(), old, 0) == 0);
  CHECK(removed(store.prune({.used_since = 2})) == 1);
  refuse();
  CHECK(removed(store.prune({.most_bytes = 0})) == 2); // the damaged one, too
  refuse();
  CHECK(removed(store.clear()) == 1);
  CHECK(test::readText(dir + "/refused/notes.txt") == "mine");
  Refusing f(dir, Status::ok());
  CHECK(f.compile().isOk());
}

TEST_CASE("what the folder of an image says of refusals is believed where that is only read") {
  TemporaryFolder folder;
  Refusing image(folder.path("image"), kSpills);
  CHECK(!image.compile());
  const auto before = KernelStore::openReadOnly(folder.path("image"), nullptr);
  const auto own = KernelStore::open("", nullptr);
  KernelTable table({*own, {before.get()}}, {}, /*offline=*/true, [](const std::string &) {});
  table.rememberRefusals([](const Target &) { return std::nullopt; });
  const auto code = table.code(sampleKernel(), kTarget);
  REQUIRE_FALSE(code.isOk());
  CHECK(code.status().code() == StatusCode::CompileFailed);
}

TEST_CASE("a kill, a time-out, a crash, no memory, and what is unknown of the assemblers are no refusal") {
  TemporaryFolder folder;
  for (const StatusCode code : {StatusCode::IoError, StatusCode::TimedOut, StatusCode::CompilerCrashed,
                                StatusCode::OutOfMemory, StatusCode::InvalidArgument, StatusCode::Internal}) {
    Refusing f(folder.path("cache"), {code, "not this time"});
    CHECK(!f.compile());
  }
  Refusing blind(folder.path("cache"), kSpills, std::nullopt);
  CHECK(!blind.compile());
  Refusing f(folder.path("cache"), Status::ok());
  CHECK(f.compile().isOk());
}

TEST_CASE("offline a refusal is believed, whatever refused: the caller's next choice is what was warmed") {
  TemporaryFolder folder;
  Refusing first(folder.path("cache"), kSpills);
  CHECK(!first.compile());
  Refusing f(folder.path("cache"), Status::ok(), std::nullopt, /*offline=*/true);
  CHECK(f.compile().code() == StatusCode::CompileFailed); // not NotResident, which ends the search
  CHECK(f.compiles == 0);
}

TEST_CASE("a refusal that is damaged, of others or of another key is none") {
  TemporaryFolder folder;
  const std::string file =
      folder.path("cache") + "/refused/" + KernelTable::keyOf(sampleKernel(), kTarget).hex() + ".txt";
  const auto text = [&] {
    Refusing first(folder.path("cache"), kSpills);
    CHECK(!first.compile());
    std::ifstream stream(file);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }();
  REQUIRE(text.starts_with("flashplus-refusal 1\n"));
  const auto known = [&] {
    return KernelStore::open(folder.path("cache"), nullptr)
        ->refusal(KernelTable::keyOf(sampleKernel(), kTarget));
  };
  REQUIRE(known());
  CHECK(known()->reason == "the schedule spills");
  CHECK(known()->toolchain == "ptxas 13.0");
  const auto write = [&](const std::string &bytes) { std::ofstream(file, std::ios::trunc) << bytes; };
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] ^= 1;
    write(damaged);
    CHECK(!known());
    write(text.substr(0, i));
    CHECK(!known());
  }
  write(text);
  CHECK(known());
  REQUIRE(chmod(file.c_str(), 0666) == 0);
  CHECK(!known());
  REQUIRE(chmod(file.c_str(), 0600) == 0);
  CHECK(!KernelStore::open(folder.path("cache"), nullptr)
             ->refusal(KernelTable::keyOf(sampleKernel(kTarget, 32), kTarget)));
}

TEST_CASE("so many refusals are kept, the oldest go") {
  TemporaryFolder folder;
  const auto store = KernelStore::open(folder.path("cache"), nullptr);
  const auto key = [](int i) {
    KernelKey key = KernelTable::keyOf(sampleKernel(), kTarget);
    key.build = std::to_string(i);
    return key;
  };
  const int most = int(KernelStore::kMostRefusals);
  store->noteRefusal(key(0), {"", "first"});
  const timespec old[2] = {{1, 0}, {1, 0}};
  const std::string first = folder.path("cache") + "/refused/" + key(0).hex() + ".txt";
  REQUIRE(utimensat(AT_FDCWD, first.c_str(), old, 0) == 0);
  for (int i = 1; i < most; ++i) // as cheap as a file: what is counted is names
    test::writeText(folder.path("cache") + "/refused/" + key(i).hex() + ".txt", "x");
  CHECK(store->refusal(key(0)));
  store->noteRefusal(key(most), {"", "last"});
  CHECK(!store->refusal(key(0)));
  CHECK(store->refusal(key(most)));
}
