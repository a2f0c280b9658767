// SPDX-License-Identifier: BSD-3-Clause
// `flashplus warmup`: what it lists, that it is resumable, and that a warmed spec never compiles.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <set>

using namespace flashplus;
using test::runCli;

TEST_CASE("the list of a release holds every dtype of the target, once") {
  auto cpu = runCli({"warmup", "--list", "--target", "cpu", "--json"}).json();
  auto gpu = runCli({"warmup", "--list", "--target", "sm_80", "--arch", "sm_80,sm_90", "--json"}).json();
  REQUIRE(cpu["variants"].size() > 20);
  REQUIRE(gpu["variants"].size() > 40);
  auto holds = [](const nlohmann::json &list, const std::string &text) {
    for (const auto &row : list["variants"])
      if (row["spec"].get<std::string>().find(text) != std::string::npos)
        return true;
    return false;
  };
  CHECK(holds(cpu, "dtype=fp32"));
  CHECK(!holds(gpu, "dtype=fp32"));
  CHECK(holds(gpu, "dqk=192 dv=128"));
  CHECK(holds(gpu, "tanh"));
  std::set<std::string> seen;
  for (const auto &row : gpu["variants"])
    CHECK(seen.insert(row.dump()).second);
  auto text = runCli({"warmup", "--list", "--target", "sm_80"});
  CHECK(text.code == 0);
  CHECK(text.out.find("sm_80@sm_80") != std::string::npos);
}

#ifdef FLASHPLUS_HAS_COMPILER

TEST_CASE("a warm-up is planned, done, and then has nothing left to do; the spec never compiles again") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache");
  std::vector<std::string> warmup = {"warmup", "--target", "cpu",  "--head-dim", "64",     "--dtype",
                                     "bf16",   "--causal", "both", "--json",     "--jobs", "2"};
  auto dry = warmup;
  dry.push_back("--dry-run");
  auto planned = runCli(dry, cache).json();
  REQUIRE(planned["kernels"].size() > 2); // both masks, split and unsplit
  CHECK(planned["missing"] == planned["kernels"].size());
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["kernels"] == 0);

  auto first = runCli(warmup, cache);
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.json()["compiled"] == planned["kernels"].size());
  CHECK(first.json()["failed"] == 0);
  auto again = runCli(warmup, cache).json();
  CHECK(again["compiled"] == 0);
  CHECK(again["present"] == planned["kernels"].size());
  CHECK(runCli(dry, cache).json()["missing"] == 0);

  for (const char *sizes : {"1,1,1,1,1,64", "1,300,300,2,2,64", "1,1,20000,1,1,64", "3,7,900,8,2,64"})
    for (bool causal : {false, true}) {
      std::vector<std::string> run = {"run", "--random", sizes, "--device", "cpu", "--repeat", "0", "--json"};
      if (causal)
        run.push_back("--causal");
      auto result = runCli(run, cache).json();
      INFO(sizes);
      CHECK(result["counters"]["compiles"] == 0);
      CHECK(result["from"] == "disk");
    }
}

TEST_CASE("a cache that can't be written is a failure of warm-up") {
  // A regular file stands where the folder should be.
  test::TemporaryFolder folder;
  std::string blocked = folder.path("file");
  test::writeText(blocked, "");
  auto result =
      runCli({"warmup", "--target", "cpu", "--head-dim", "64", "--dtype", "bf16", "--causal", "no"}, blocked);
  CHECK(result.code == 1);
}

#endif // FLASHPLUS_HAS_COMPILER
