// SPDX-License-Identifier: BSD-3-Clause
// `flashplus warmup --spec` and `--specs`: what an error or a record of misses names is warmed, and then
// there.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <algorithm>
#include <filesystem>

using namespace flashplus;
using test::runCli;

namespace {

bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

const std::string kSpec = "forward dtype=bf16 dqk=64 dv=64 right=1";

} // namespace

TEST_CASE("a spec by its text is listed with its kernels, and each once") {
  auto listed =
      runCli({"warmup", "--list", "--json", "--target", "x86-64-v3", "--spec", kSpec, "--spec", kSpec});
  INFO(listed.err);
  REQUIRE(listed.code == 0);
  REQUIRE(listed.json()["variants"].size() == 1);
  CHECK(listed.json()["variants"][0]["spec"] == kSpec);
  CHECK(listed.json()["kernels"] > 0);
}

TEST_CASE("specs that are wrong are named with their file and line, and go with no other choice") {
  test::TemporaryFolder folder;
  auto bad =
      runCli({"warmup", "--list", "--target", "x86-64-v3", "--spec", "forward dtype=bf16 dqk=cow dv=64"});
  CHECK(bad.code == 2);
  CHECK(has(bad.err, "--spec: "));
  const std::string file = folder.path("specs");
  test::writeText(file, "# a comment\n\n" + kSpec + "\tno schedule\n");
  auto fields = runCli({"warmup", "--list", "--specs", file});
  CHECK(fields.code == 2);
  CHECK(has(fields.err, file + ", line 3"));
  const auto endless = runCli({"warmup", "--list", "--specs", "/dev/zero"});
  CHECK(endless.code == 2);
  CHECK(endless.err.find("'/dev/zero' has more than 16 MiB") != std::string::npos);
  auto missing = runCli({"warmup", "--list", "--specs", folder.path("none")});
  CHECK(missing.code == 2);
  CHECK(has(missing.err, "cannot be read"));
  for (std::vector<std::string> more :
       {std::vector<std::string>{"--head-dim", "64"}, {"--backward"}, {"--paged"}}) {
    std::vector<std::string> arguments = {"warmup", "--list", "--target", "x86-64-v3", "--spec", kSpec};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto both = runCli(arguments);
    CHECK(both.code == 2);
    CHECK(has(both.err, "names kernels whole"));
  }
}

TEST_CASE("lines for other targets are left out and said, and a file of nothing else is a failure") {
  test::TemporaryFolder folder;
  const std::string file = folder.path("missed"),
                    schedules[] = {runCli({"inspect", "--stage", "spec", "--target", "sm_80", "--json",
                                           "--schedule", "tile_n=32"})
                                       .json()["schedule"],
                                   runCli({"inspect", "--stage", "spec", "--target", "sm_90a", "--json",
                                           "--schedule", "tile_n=64"})
                                       .json()["schedule"]};
  const std::string old = kSpec + "\t" + schedules[0] + "\tsm_80@sm_80\n",
                    hopper = kSpec + "\t" + schedules[1] + "\tsm_90a@sm_90a\n";
  test::writeText(file, old + hopper);
  const auto listed = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"warmup", "--list", "--json", "--specs", file});
    return runCli(more);
  };
  const auto all = listed({});
  INFO(all.err);
  REQUIRE(all.code == 0);
  CHECK(all.json()["variants"].size() == 2);
  for (const auto &[flag, name, target] : {std::tuple{"--target", "sm_90a", "sm_90a@sm_90a"},
                                           {"--gpu", "h100", "sm_90a@sm_90a"},
                                           {"--gpu", "a100", "sm_80@sm_80"}}) {
    const auto some = listed({flag, name});
    INFO(some.err);
    REQUIRE(some.code == 0);
    REQUIRE(some.json()["variants"].size() == 1);
    CHECK(some.json()["variants"][0]["target"] == target);
    CHECK(has(some.err, "1 of 2 specs of --specs are for other targets: "));
  }
  for (const auto &[flag, name] : {std::tuple{"--target", "cpu"}, {"--gpu", "l40s"}}) {
    const auto none = listed({flag, name});
    CHECK(none.code == 2);
    CHECK(has(
        none.err,
        "2 of 2 specs of --specs are for other targets: sm_80@sm_80 (1), sm_90a@sm_90a (1); asked for is"));
  }
  test::writeText(file, "# nothing was missed\n\n");
  const auto empty = listed({});
  CHECK(empty.code == 0);
  CHECK(has(empty.err, "there is no spec in what was named"));
}

TEST_CASE("a window that is bounded on the left only is a choice") {
  auto left = runCli({"warmup", "--list", "--json", "--target", "x86-64-v3", "--head-dim", "64", "--dtype",
                      "bf16", "--window", "left", "--causal", "no"});
  INFO(left.err);
  REQUIRE(left.code == 0);
  REQUIRE(left.json()["variants"].size() == 1);
  CHECK(left.json()["variants"][0]["spec"] == "forward dtype=bf16 dqk=64 dv=64 left=1");
}

TEST_CASE("a verb that only looks makes no folder") {
  test::TemporaryFolder folder;
  const std::string nowhere = folder.path("nowhere");
  for (const char *verb : {"ls", "stats", "verify", "clear"}) {
    auto looked = runCli({"cache", verb, "--json"}, nowhere);
    CHECK_MESSAGE(looked.code == 0, verb << ": " << looked.err);
    auto named = runCli({"cache", verb, "--cache-dir", nowhere});
    CHECK_MESSAGE(named.code != 0, verb);
    CHECK_MESSAGE(has(named.err, "is not there"), verb << ": " << named.err);
  }
  CHECK(!std::filesystem::exists(nowhere));
}

#ifdef FLASHPLUS_HAS_COMPILER

TEST_CASE("what a run missed is warmed from its record, and what an offline miss recommends works") {
  test::TemporaryFolder folder;
  const std::string record = folder.path("missed"), warm = folder.path("warm");
  const std::vector<std::string> run = {"run",      "--random", "1,5,300,2,2,64", "--device", "cpu",
                                        "--repeat", "0",        "--json"};
  auto recording = run;
  recording.insert(recording.end(), {"--record-misses", record});
  auto cold = runCli(recording, folder.path("cold"));
  INFO(cold.err);
  REQUIRE(cold.code == 0);
  const std::string lines = test::readText(record);
  CHECK(std::count(lines.begin(), lines.end(), '\n') == cold.json()["counters"]["compiles"]);
  auto warmed = runCli({"warmup", "--specs", record, "--json"}, warm);
  INFO(warmed.err);
  REQUIRE(warmed.code == 0);
  CHECK(warmed.json()["compiled"] > 0);
  CHECK(runCli(run, warm).json()["counters"]["compiles"] == 0);
}

#endif
