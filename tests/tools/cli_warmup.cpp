// SPDX-License-Identifier: BSD-3-Clause
// `flashplus warmup`: what it lists, that it is resumable, and that a warmed spec never compiles.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

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

namespace {

/// Environment variables for a scope.
class Environment {
public:
  Environment(std::initializer_list<std::pair<const char *, std::string>> values) {
    for (const auto &[name, value] : values) {
      const char *old = std::getenv(name);
      before_.push_back({name, old ? std::optional<std::string>(old) : std::nullopt});
      ::setenv(name, value.c_str(), 1);
    }
  }
  ~Environment() {
    for (const auto &[name, value] : before_)
      value ? ::setenv(name, value->c_str(), 1) : ::unsetenv(name);
  }

private:
  std::vector<std::pair<const char *, std::optional<std::string>>> before_;
};

/// A program that behaves as ptxas does, after `first` (shell) when it assembles.
std::string fakePtxas(const test::TemporaryFolder &folder, const std::string &name,
                      const std::string &first = "", const std::string &version = "13.7") {
  const std::string path = folder.path(name);
  test::writeText(path, "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'Cuda compilation tools, release " +
                            version + ", V" + version + ".1'; exit 0; }\n" + first +
                            "\nwhile [ $# -gt 1 ]; do [ \"$1\" = -o ] && out=$2; shift; done\n"
                            "[ -s \"$1\" ] || [ -n \"$out\" ] || exit 3\nprintf '\\177ELFfake' > \"$out\"\n"
                            "echo 'ptxas info    : Used 40 registers'\n");
  ::chmod(path.c_str(), 0700);
  return path;
}

const std::vector<std::string> kHopper = {"warmup", "--target", "sm_90a", "--head-dim", "64", "--dtype",
                                          "bf16",   "--causal", "no",     "--jobs",     "1",  "--json"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::string &more) {
  arguments.push_back(more);
  return arguments;
}

} // namespace

TEST_CASE("a warm-up fails if the cache is too small for its kernels, and not if it made room for them") {
  const char *fake = std::getenv("FLASHPLUS_FAKE_COMPILER"); // what the kernels do does not matter
  const Environment small{{"FLASHPLUS_CACHE_SIZE", "1M"}, {"FLASHPLUS_COMPILER", fake ? fake : ""}};
  const std::vector<std::string> warmup = {"warmup", "--target", "cpu", "--head-dim", "64",    "--dtype",
                                           "bf16",   "--causal", "no",  "--jobs",     "1",     "--json"};
  for (const bool newest : {false, true}) {
    // A cache that is full of others' files, one in each folder, which went unused for an hour or just came.
    test::TemporaryFolder folder;
    const std::string cache = folder.path("cache");
    REQUIRE(::mkdir(cache.c_str(), 0700) == 0);
    for (int i = 0; i < 256; ++i) {
      const std::string name = {"0123456789abcdef"[i / 16], "0123456789abcdef"[i % 16]},
                        shard = cache + "/" + name, file = shard + "/" + name + std::string(30, '0') + ".fpk";
      REQUIRE(::mkdir(shard.c_str(), 0700) == 0);
      test::writeText(file, std::string(4090, 'x'));
      std::filesystem::permissions(file, std::filesystem::perms(0600));
      std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() +
                                                 std::chrono::hours(newest ? 1 : -1));
    }
    auto result = runCli(warmup, cache);
    INFO(result.err);
    auto json = result.json();
    REQUIRE(json["kernels"].size() > 4);
    CHECK(json["compiled"] == json["kernels"].size());
    CHECK(json["counters"]["evicted"] > 0);
    CHECK(result.code == (newest ? 1 : 0));
    CHECK((json["not_kept"] > 0) == newest);
    CHECK((result.err.find("$FLASHPLUS_CACHE_SIZE") != std::string::npos));
  }
}

TEST_CASE("PTX for Hopper is a failure of warm-up, with a list, unless it will do; an assembler makes it "
          "better later") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  size_t kernels = 0;
  {
    const Environment none{{"FLASHPLUS_PTXAS", "off"}};
    auto failed = runCli(kHopper, cache);
    CHECK(failed.code == 1);
    kernels = failed.json()["kernels"].size();
    REQUIRE(kernels > 0);
    CHECK(failed.json()["failed"] == kernels);
    CHECK(failed.json()["kernels"][0]["kind"] == "ptx");
    CHECK(failed.json()["kernels"][0]["message"].get<std::string>().find("no assembler for sm_90a") !=
          std::string::npos);
    CHECK(runCli(with(kHopper, "--dry-run"), cache).json()["missing"] == kernels);
    auto text = kHopper;
    std::erase(text, "--json");
    CHECK(runCli(text, cache).err.find("failed: sm_90a") != std::string::npos);
    auto taken = runCli(with(kHopper, "--no-require-cubin"), cache);
    CHECK(taken.code == 0);
    CHECK(taken.json()["present"] == kernels);
  }
  const auto kinds = [&] { return runCli({"cache", "stats", "--json"}, cache).json()["kinds"]; };
  CHECK(kinds() == nlohmann::json{{"ptx", kernels}});
  {
    const Environment some{{"FLASHPLUS_PTXAS", fakePtxas(folder, "ptxas")}};
    auto better = runCli(kHopper, cache);
    INFO(better.err);
    CHECK(better.code == 0);
    CHECK(better.json()["compiled"] == kernels);
    CHECK(kinds() == nlohmann::json{{"cubin", kernels}});
    CHECK(runCli(kHopper, cache).json()["present"] == kernels);
    auto rows = runCli({"cache", "ls", "--json"}, cache).json()["entries"];
    CHECK(rows[0]["provenance"].get<std::string>().find("ptxas 13.7") != std::string::npos);
  }
  const Environment none{{"FLASHPLUS_PTXAS", "off"}};
  CHECK(runCli(kHopper, cache).json()["present"] == kernels);
}

TEST_CASE(
    "an assembler that was named and does not work is an error that says so; another never takes its place") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  for (const auto &[path, why] : {std::pair<std::string, std::string>{"/bin/false", "failed with code 1"},
                                  {"/nonexistent/ptxas", "No such file"},
                                  {"/bin/echo", "does not print the version of ptxas"}}) {
    // the suite may name one that works
    const Environment named{{"FLASHPLUS_PTXAS", path}, {"FLASHPLUS_NVJITLINK", ""}};
    for (const char *target : {"sm_90a", "sm_80"}) {
      auto arguments = kHopper;
      arguments[2] = target;
      auto failed = runCli(arguments, cache);
      CHECK(failed.code == 1);
      const std::string message = failed.json()["kernels"][0]["message"];
      INFO(message);
      CHECK(message.find("$FLASHPLUS_PTXAS is '" + path + "'") != std::string::npos);
      CHECK(message.find(why) != std::string::npos);
    }
  }
  const Environment named{{"FLASHPLUS_NVJITLINK", "/nonexistent/libnvJitLink.so"}, {"FLASHPLUS_PTXAS", ""}};
  auto arguments = kHopper;
  arguments[2] = "sm_80";
  auto failed = runCli(arguments, cache);
  CHECK(failed.code == 1);
  CHECK(failed.json()["kernels"][0]["message"].get<std::string>().find(
            "$FLASHPLUS_NVJITLINK is '/nonexistent/libnvJitLink.so'") != std::string::npos);
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["kernels"] == 0);
}

TEST_CASE("no temporary folder, and SIGCHLD ignored: kernels are assembled all the same") {
  test::TemporaryFolder folder;
  const Environment assembler{{"FLASHPLUS_PTXAS", fakePtxas(folder, "ptxas")}};
  const std::string careless = folder.path("careless");
  test::writeText(careless, "#!/bin/sh\ntrap '' CHLD\nTMPDIR=/nonexistent exec '" +
                                std::string(std::getenv("FLASHPLUS_CLI")) + "' \"$@\"\n");
  ::chmod(careless.c_str(), 0700);
  const Environment program{{"FLASHPLUS_CLI", careless}};
  auto good = runCli(kHopper, folder.path("other"));
  CHECK(good.code == 0);
  CHECK(good.json()["kernels"][0]["kind"] == "cubin");
  // A refusal is still one.
  const Environment refusing{
      {"FLASHPLUS_PTXAS", fakePtxas(folder, "refuses", "echo 'error : no such register'; exit 7")}};
  auto refused = runCli(kHopper, folder.path("third"));
  CHECK(refused.code == 1);
  CHECK(refused.json()["kernels"][0]["message"].get<std::string>().find(
            "failed with code 7: error : no such register") != std::string::npos);
}

TEST_CASE("an assembler that is killed, or fails without a word, is run once more, and nothing is concluded "
          "from it") {
  test::TemporaryFolder folder;
  const std::string once = "[ -e \"$0.ran\" ] || { : > \"$0.ran\"; ";
  for (const char *end : {"kill -KILL $$; }", "exit 1; }"}) {
    const std::string name = std::string("ptxas") + end[0];
    const Environment flaky{{"FLASHPLUS_PTXAS", fakePtxas(folder, name, once + end)}};
    auto good = runCli(kHopper, folder.path("cache-" + name));
    INFO(good.out);
    CHECK(good.code == 0);
  }
  for (const auto &[end, said] :
       {std::pair<std::string, std::string>{"kill -KILL $$", "killed by signal 9 (SIGKILL) when it used "},
        {"exit 1", "failed with code 1 and printed nothing, twice"}}) {
    const Environment broken{{"FLASHPLUS_PTXAS", fakePtxas(folder, "broken", end)}};
    auto failed = runCli(kHopper, folder.path("none"));
    CHECK(failed.code == 1);
    CHECK_MESSAGE(failed.out.find(said) != std::string::npos, failed.out);
    CHECK(runCli({"cache", "stats", "--json"}, folder.path("none")).json()["kernels"] == 0);
  }
}

TEST_CASE(
    "an assembler that hangs is ended after its time, with what it has started, and that is no refusal") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  for (const char *in_process : {"0", "1"}) {
    CAPTURE(in_process);
    const std::string name = std::string("hangs") + in_process, pid = folder.path(name + ".pid");
    const Environment hanging{
        {"FLASHPLUS_PTXAS", fakePtxas(folder, name, "sleep 600 & echo $! >'" + pid + "'; wait")},
        {"FLASHPLUS_NVJITLINK", "off"},
        {"FLASHPLUS_COMPILE_IN_PROCESS", in_process},
        {"FLASHPLUS_COMPILE_SECONDS", "6"}};
    auto failed = runCli(
        {"inspect", "--stage", "resources", "--target", "sm_90a", "--head-dim", "64", "--dtype", "bf16"},
        cache);
    CHECK(failed.code == 1);
    CHECK_MESSAGE(failed.err.find("after 6 s") != std::string::npos, failed.err);
    std::ifstream file(pid);
    pid_t sleeper = 0;
    REQUIRE(bool(file >> sleeper));
    for (int i = 0; i < 1000 && ::kill(sleeper, 0) == 0; ++i) // where nobody waits for it, it stays a while
      ::usleep(5000);
    CHECK(::kill(sleeper, 0) != 0);
    CHECK(!std::filesystem::exists(cache + "/refused"));
  }
}

TEST_CASE("what an assembler refuses is tried again by nobody with it, and by anybody with another") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), runs = folder.path("runs");
  const auto message = [&](const std::string &ptxas) {
    const Environment named{{"FLASHPLUS_PTXAS", ptxas}};
    auto ran = runCli(kHopper, cache);
    return ran.code ? ran.json()["kernels"][0]["message"].get<std::string>() : "good";
  };
  const std::string refuses =
      fakePtxas(folder, "refuses", "echo x >>'" + runs + "'; echo 'error : no such register'; exit 7");
  CHECK(message(refuses).find("no such register") != std::string::npos);
  const auto size = std::filesystem::file_size(runs);
  const std::string again = message(refuses);
  CHECK_MESSAGE(again.find("no such register") != std::string::npos, again);
  CHECK_MESSAGE(again.find("compiled before") != std::string::npos, again);
  CHECK(std::filesystem::file_size(runs) == size);
  CHECK(runCli({"cache", "clear"}, cache).code == 0);
  CHECK(message(fakePtxas(folder, "takes")) == "good");
}

#endif // FLASHPLUS_HAS_COMPILER
