// SPDX-License-Identifier: BSD-3-Clause
// `flashplus cache`: packs, what is listed and removed, and why a kernel is missing.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <cstdlib>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

using namespace flashplus;
using test::runCli;
namespace fs = std::filesystem;

namespace {

/// An environment variable for a scope.
struct Set {
  Set(const char *name, const std::string &value) : name(name) { ::setenv(name, value.c_str(), 1); }
  ~Set() { ::unsetenv(name); }
  const char *name;
};

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("verbs that only look at a cache make nothing") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("not/there"), parent = folder.path("not");
  for (const std::vector<std::string> &verb : std::vector<std::vector<std::string>>{
           {"cache", "ls"},
           {"cache", "stats"},
           {"cache", "verify"},
           {"cache", "prune", "--older", "1d"},
           {"cache", "clear"},
           {"cache", "why", "forward dtype=bf16 dqk=64 dv=64", "--target", "cpu"},
           {"cache", "export", "-o", folder.path("kernels.fpk")},
           {"cache", "import", folder.path("absent.fpk")},
           {"warmup", "--list", "--target", "cpu"},
           {"warmup", "--dry-run", "--target", "cpu", "--head-dim", "64", "--dtype", "bf16"}}) {
    CAPTURE(verb[1]);
    const auto result = runCli(verb, cache);
    CHECK((result.code == 0) == (verb[1] != "export" && verb[1] != "import"));
    CHECK(!fs::exists(parent));
    CHECK(!fs::exists(folder.path("kernels.fpk")));
  }
}

TEST_CASE("flags of cache that say nothing or nonsense are answered with what is allowed") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), text = folder.path("notes.txt");
  test::writeText(text, "mine");
  const auto refused = [&](const std::vector<std::string> &arguments, const std::string &why) {
    const auto result = runCli(arguments, cache);
    CAPTURE(result.err);
    CHECK(result.code == 2);
    CHECK(contains(result.err, why));
  };
  refused({"cache", "prune"}, "--older, --max-size or --stale-builds");
  refused({"cache", "prune", "--older", "30"}, "--older is '30'; it must be a number with s, m, h, d or w");
  refused({"cache", "prune", "--max-size", "2T"}, "--max-size is '2T'");
  refused({"cache", "export", "--used-since", "2026-02-30", "-o", "k.fpk"}, "--used-since is '2026-02-30'");
  refused({"cache", "export"}, "--output");
  refused({"cache", "why", "forward dtype=bf17"}, "bf17");
  refused({"cache", "ls", folder.path("absent.fpk")}, "is not there");
  const auto no_pack = runCli({"cache", "verify", text}, cache);
  CHECK(no_pack.code == 1);
  CHECK(contains(no_pack.err, "does not start as a pack of kernels does"));
  CHECK(test::readText(text) == "mine");
}

#ifdef FLASHPLUS_HAS_COMPILER

namespace {

/// A cache with the kernels of a variant of head dim 64, and how many there are.
size_t warm(const std::string &cache, const std::string &causal = "no") {
  const auto warmed = runCli({"warmup", "--target", "cpu", "--head-dim", "64", "--dtype", "bf16", "--causal",
                              causal, "--json", "--jobs", "2"},
                             cache);
  INFO(warmed.err);
  REQUIRE(warmed.code == 0);
  return warmed.json()["kernels"].size();
}

std::vector<std::string> filesBelow(const std::string &folder) {
  std::vector<std::string> files;
  for (const auto &item : fs::recursive_directory_iterator(folder))
    if (item.is_regular_file())
      files.push_back(item.path().lexically_relative(folder).string());
  std::ranges::sort(files);
  return files;
}

void setUsed(const std::string &path, int64_t seconds_ago) {
  const timespec then{::time(nullptr) - seconds_ago, 0}, times[] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

} // namespace

TEST_CASE("a pack that was exported is used where it lies, and imported: nothing compiles") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), pack = folder.path("kernels.fpk");
  const size_t kernels = warm(cache);
  fs::create_directory(cache + "/tuning");
  fs::permissions(cache + "/tuning", fs::perms::owner_all);
  test::writeText(cache + "/tuning/mine.json", "{\"format\": \"flashplus-tuning 1\", \"cells\": []}");
  ::chmod((cache + "/tuning/mine.json").c_str(), 0600);
  auto exported = runCli({"cache", "export", "-o", pack, "--json"}, cache);
  INFO(exported.err);
  REQUIRE(exported.code == 0);
  CHECK(exported.json()["kernels"] == kernels);
  CHECK(exported.json()["tuning_records"] == 1);
  const std::string bytes = test::readText(pack);
  REQUIRE(runCli({"cache", "export", "-o", pack}, cache).code == 0);
  CHECK(test::readText(pack) == bytes);
  CHECK(folder.entries() == std::vector<std::string>{"cache", "kernels.fpk"});

  CHECK(runCli({"cache", "verify", pack}, "").code == 0);
  CHECK(runCli({"cache", "ls", pack, "--json"}, "").json()["entries"].size() == kernels);
  CHECK(runCli({"cache", "stats", pack, "--json"}, "").json()["kernels"] == kernels);

  const std::vector<std::string> run = {"run",      "--random", "1,50,50,2,2,64", "--device", "cpu",
                                        "--repeat", "0",        "--json"};
  {
    const Set path("FLASHPLUS_CACHE_PATH", pack);
    const std::string other = folder.path("other");
    const auto used = runCli(run, other);
    INFO(used.err);
    CHECK(used.json()["counters"]["compiles"] == 0);
    CHECK(used.json()["from"] == "disk");
    CHECK(contains(used.err, pack + ":tuning/mine.json")); // read, and found to say nothing
    CHECK(filesBelow(other) == std::vector<std::string>{"counts"});
    const auto why =
        runCli({"cache", "why", "forward dtype=bf16 dqk=64 dv=64", "--target", "cpu", "--json"}, other);
    CHECK(why.json()["missing"] == 0);
    CHECK(contains(why.json()["kernels"][0]["path"], pack + ":"));
  }
  const std::string fresh = folder.path("fresh");
  auto imported = runCli({"cache", "import", pack, "--json"}, fresh);
  INFO(imported.err);
  REQUIRE(imported.code == 0);
  CHECK(imported.json()["imported"] == kernels);
  CHECK(imported.json()["tuning_records"] == 1);
  std::vector<std::string> written = filesBelow(cache);
  std::erase(written, "counts");
  CHECK(filesBelow(fresh) == written);
  CHECK(runCli({"cache", "import", pack, "--json"}, fresh).json()["present"] == kernels);
  CHECK(runCli(run, fresh).json()["counters"]["compiles"] == 0);
  CHECK(runCli({"cache", "export", "-o", folder.path("again.fpk")}, fresh).code == 0);
  CHECK(test::readText(folder.path("again.fpk")) == bytes);
}

TEST_CASE("two caches that were filled in other circumstances are the same bytes") {
  test::TemporaryFolder folder;
  const std::vector<std::string> warmup = {"warmup", "--target", "cpu", "--head-dim", "32", "--dtype",
                                           "fp32",   "--causal", "no",  "--jobs",     "1",  "--json"};
  std::vector<std::string> packs;
  const auto fill = [&](const std::string &name, const std::string &jobs) {
    std::vector<std::string> command = warmup;
    command[10] = jobs;
    REQUIRE(runCli(command, folder.path(name)).code == 0);
    const std::string pack = folder.path(name + ".fpk");
    REQUIRE(runCli({"cache", "export", "-o", pack}, folder.path(name)).code == 0);
    packs.push_back(test::readText(pack));
  };
  fill("a", "1");
  {
    // what is in no key: none of it may be in what is made
    const Set threads("FLASHPLUS_NUM_THREADS", "3"), locale("LC_ALL", "de_DE.UTF-8"),
        zone("TZ", "Asia/Tokyo"), temporary("TMPDIR", folder.path()), size("FLASHPLUS_CACHE_SIZE", "1G"),
        record("FLASHPLUS_RECORD_MISSES", folder.path("missed.txt"));
    fill("b", "4");
  }
  CHECK(packs[0].size() > 1000);
  CHECK(packs[0] == packs[1]);
}

TEST_CASE("stats sums up what all processes did, and those that are offline or only look write nothing") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const size_t kernels = warm(cache);
  const auto counts = [&] { return runCli({"cache", "stats", "--json"}, cache).json()["counts"]; };
  CHECK(counts()["compiles"] == kernels);
  CHECK(counts()["contexts"] == 1);
  CHECK(counts()["miss_absent"] == kernels);
  warm(cache);
  CHECK(counts()["compiles"] == kernels);
  CHECK(counts()["disk_hits"] == kernels);
  CHECK(counts()["contexts"] == 2);
  const std::string before = test::readText(cache + "/counts");
  runCli({"warmup", "--dry-run", "--target", "cpu", "--head-dim", "64", "--dtype", "bf16"}, cache);
  CHECK(test::readText(cache + "/counts") == before);
  CHECK(contains(runCli({"cache", "stats"}, cache).out, "2 contexts found " + std::to_string(kernels)));
  test::writeText(cache + "/counts", "flashplus-counts 1\ndamaged");
  CHECK(counts().is_null());
  warm(cache);
  CHECK(counts()["contexts"] == 1);
}

TEST_CASE("an export takes what is meant, and says what is missing") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), pack = folder.path("kernels.fpk");
  const size_t kernels = warm(cache);
  const std::string spec = "forward dtype=bf16 dqk=64 dv=64", causal = spec + " right=1";
  CHECK(runCli({"cache", "export", "--spec", spec, "-o", pack, "--json"}, cache).json()["kernels"] ==
        kernels);
  fs::remove(pack);
  auto missing = runCli({"cache", "export", "--spec", causal, "-o", pack}, cache);
  CHECK(missing.code == 1);
  CHECK(contains(missing.err, "are not in the cache; warm them first, or say --partial"));
  CHECK(!fs::exists(pack));
  auto partial =
      runCli({"cache", "export", "--spec", causal, "--spec", spec, "--partial", "-o", pack, "--json"}, cache);
  CHECK(partial.json()["kernels"] == kernels);
  CHECK(partial.json()["missing"] > 0);
  fs::remove(pack);
  CHECK(runCli({"cache", "export", "--target", "sm_80", "-o", pack}, cache).code == 1);
  CHECK(runCli({"cache", "export", "--target", "cpu", "-o", pack}, cache).code == 0);

  std::vector<std::string> files = filesBelow(cache);
  std::erase(files, "counts");
  for (size_t i = 1; i < files.size(); ++i)
    setUsed(cache + "/" + files[i], 90'000);
  CHECK(runCli({"cache", "export", "--used-since", "12h", "-o", pack, "--json"}, cache).json()["kernels"] ==
        1);
}

TEST_CASE("ls shows what its filters say, prune removes it, and nothing else is touched") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const size_t plain = warm(cache), both = warm(cache, "both");
  const auto count = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"cache", "ls", "--json"});
    return runCli(more, cache).json()["entries"].size();
  };
  CHECK(count({}) == both);
  const std::string target = runCli({"cache", "ls", "--json"}, cache).json()["entries"][0]["target"];
  CHECK(count({"--spec", "right=1 dqk=64"}) == both - plain);
  CHECK(count({"--spec", "forward", "--spec", "combine"}) == both);
  CHECK(count({"--spec", "dqk=6"}) == 0);
  CHECK(count({"--target", "cpu"}) == both);
  CHECK(count({"--target", "cuda"}) == 0);
  CHECK(count({"--target", "sm_80," + target}) == both);
  CHECK(count({"--arch", "sm_90"}) == 0);

  const std::string mine = cache + "/notes.txt";
  test::writeText(mine, "mine");
  std::vector<std::string> files = filesBelow(cache);
  std::erase(files, "counts");
  for (const std::string &file : files)
    setUsed(cache + "/" + file, file == files[0] ? 100'000 : 1000);
  const auto prune = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"cache", "prune", "--json"});
    return runCli(more, cache).json()["removed"].get<size_t>();
  };
  CHECK(prune({"--older", "1d", "--dry-run"}) == 1);
  CHECK(count({}) == both);
  CHECK(prune({"--older", "1d"}) == 1);
  CHECK(count({}) == both - 1);
  CHECK(prune({"--stale-builds"}) == 0);
  CHECK(prune({"--max-size", "1G"}) == 0);
  CHECK(prune({"--max-size", "0"}) == both - 1);
  CHECK(test::readText(mine) == "mine");
}

TEST_CASE("why names the fields in which what is there differs from what was asked for") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::string spec = "forward dtype=bf16 dqk=64 dv=64", causal = spec + " right=1";
  auto empty = runCli({"cache", "why", spec, "--target", "cpu"}, cache);
  CHECK(empty.code == 0);
  CHECK(contains(empty.out, "there are no kernels to compare it with"));
  warm(cache);
  auto there = runCli({"cache", "why", spec, "--target", "cpu", "--json"}, cache).json();
  CHECK(there["missing"] == 0);
  auto missing = runCli({"cache", "why", causal, "--target", "cpu", "--json"}, cache).json();
  CHECK(missing["present"] == 1); // what combines parts has no mask
  REQUIRE(missing["missing"] > 0);
  const auto &differs = missing["kernels"][0]["nearest"]["differs"];
  REQUIRE(differs.size() == 1); // a change of one field is one difference
  CHECK(differs[0]["field"] == "spec");
  CHECK(differs[0]["asked"] == "right=1");
  CHECK(differs[0]["there"] == "nothing");
  CHECK(contains(runCli({"cache", "why", causal, "--target", "cpu"}, cache).out,
                 "spec      right=1 asked, nothing there"));
  // The layout of the params is another then, which follows from the spec and is not told.
  auto drops = runCli({"cache", "why", spec + " dropout=1", "--target", "cpu", "--json"}, cache).json();
  REQUIRE(drops["kernels"][0]["nearest"]["differs"].size() == 1);
  CHECK(drops["kernels"][0]["nearest"]["differs"][0]["asked"] == "dropout=1");
  auto schedule =
      runCli({"cache", "why", spec, "--target", "cpu", "--schedule", "cpu.flash tile_m=24", "--json"}, cache)
          .json();
  REQUIRE(schedule["missing"] == 1);
  for (const auto &difference : schedule["kernels"][0]["nearest"]["differs"])
    CHECK((difference["field"] == "schedule" && difference["there"] != "cpu.stream"));
}

TEST_CASE("kernels that do not compile are shown with the reason, and forgotten with the others") {
  const char *fake = std::getenv("FLASHPLUS_FAKE_COMPILER"); // which refuses a schedule of head dim 18
  if (!fake || !*fake)
    return;
  const Set compiler("FLASHPLUS_COMPILER", fake);
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), spec = "forward dtype=bf16 dqk=18 dv=18 align=2";
  const auto refuse = [&] {
    CHECK(runCli({"warmup", "--spec", spec, "--target", "x86-64-v3", "--json"}, cache).code == 1);
    return runCli({"cache", "stats", "--json"}, cache).json()["refused"].get<size_t>();
  };
  const size_t refused = refuse();
  REQUIRE(refused > 0);
  auto ls = runCli({"cache", "ls", "--json", "--spec", "dqk=18"}, cache).json();
  REQUIRE(ls["refused"].size() == refused);
  CHECK(ls["refused"][0]["reason"] == "the schedule spills");
  CHECK(ls["refused"][0]["target"] == "x86-64-v3");
  CHECK(fs::exists(ls["refused"][0]["path"].get<std::string>()));
  const size_t kernels = runCli({"cache", "ls", "--json"}, cache).json()["entries"].size();
  CHECK(runCli({"cache", "ls", "--json", "--spec", "dqk=64"}, cache).json()["refused"].empty());
  CHECK(runCli({"cache", "ls", "--json", "--target", "sm_80"}, cache).json()["refused"].empty());
  CHECK(contains(runCli({"cache", "ls"}, cache).out, "by the compiler, "));
  CHECK(contains(runCli({"cache", "ls"}, cache).out, ": the schedule spills\n"));
  CHECK(contains(runCli({"cache", "stats"}, cache).out, std::to_string(refused) + " more do not compile"));
  CHECK(runCli({"cache", "verify"}, cache).code == 0);

  const std::vector<std::string> ask = {"cache", "why", spec, "--target", "x86-64-v3"};
  auto why = runCli({"cache", "why", spec, "--target", "x86-64-v3", "--json"}, cache).json();
  CHECK(why["refused"] == refused);
  CHECK(why["missing"] == 0);
  CHECK(why["kernels"][0]["state"] == "refused");
  CHECK(why["kernels"][0]["refusal"]["reason"] == "the schedule spills");
  CHECK(contains(runCli(ask, cache).out, "refused  x86-64-v3  " + spec));
  CHECK(contains(runCli(ask, cache).out, std::to_string(refused) + " refused, 0 missing"));
  {
    const Set path("FLASHPLUS_CACHE_PATH", cache); // as of an image
    CHECK(runCli({"cache", "why", spec, "--target", "x86-64-v3", "--json"}, folder.path("other"))
              .json()["refused"] == refused);
  }
  const auto exported = runCli(
      {"cache", "export", "--spec", spec, "--target", "x86-64-v3", "-o", folder.path("k.fpk")}, cache);
  CHECK(exported.code == 1);
  CHECK(contains(exported.err, "(refused by the compiler, "));

  const auto prune = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"cache", "prune", "--json"});
    return runCli(more, cache).json()["refusals"].get<size_t>();
  };
  CHECK(prune({"--older", "1d", "--stale-builds", "--max-size", "1G"}) == 0);
  CHECK(prune({"--max-size", "0", "--dry-run"}) == refused);
  for (const auto &entry : ls["refused"])
    setUsed(entry["path"], 100'000);
  CHECK(prune({"--older", "1d"}) == refused);
  CHECK(runCli({"cache", "ls", "--json"}, cache).json()["entries"].size() == kernels);
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["refused"] == 0);
  CHECK(refuse() == refused);
  auto cleared = runCli({"cache", "clear", "--json"}, cache).json();
  CHECK(cleared["removed"] == kernels);
  CHECK(cleared["refusals"] == refused);
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["refused"] == 0);
}

TEST_CASE("two warm-ups at a time share the work: each kernel is made once, and both say what they did") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> warmup = {"warmup",      "--target", "cpu",  "--head-dim",
                                           "32,48,64,80", "--dtype",  "bf16", "--causal",
                                           "both",        "--jobs",   "1",    "--json"};
  test::CliResult results[2];
  {
    std::jthread other([&] { results[0] = runCli(warmup, cache); });
    results[1] = runCli(warmup, cache);
  }
  size_t compiled = 0, kernels = 0;
  for (const auto &result : results) {
    INFO(result.err);
    REQUIRE(result.code == 0);
    const auto json = result.json();
    kernels = json["kernels"].size();
    const auto made = json["compiled"].get<size_t>(), present = json["present"].get<size_t>();
    CHECK(made + present == kernels);
    CHECK(made > 0);
    CHECK(json["counters"]["compiles"] == made);
    compiled += made;
  }
  CHECK(compiled == kernels);
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["kernels"] == kernels);
}

#endif
