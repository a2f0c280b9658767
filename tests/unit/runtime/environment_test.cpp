// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/environment.h"
#include "tests/tools/temporary.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <vector>

using namespace flashplus;
using test::TemporaryFolder;

namespace {

/// Sets variables (null: unset) and puts back what was there.
class Scoped {
public:
  explicit Scoped(const std::map<const char *, const char *> &values) {
    for (const auto &[name, value] : values) {
      const char *old = std::getenv(name);
      before_.push_back({name, old ? std::optional<std::string>(old) : std::nullopt});
      value ? setenv(name, value, 1) : unsetenv(name);
    }
  }
  ~Scoped() {
    for (const auto &[name, value] : before_)
      value ? setenv(name, value->c_str(), 1) : unsetenv(name);
  }

private:
  std::vector<std::pair<const char *, std::optional<std::string>>> before_;
};

} // namespace

TEST_CASE("where the cache is") {
  {
    Scoped env({{"FLASHPLUS_CACHE_DIR", "/a"}, {"XDG_CACHE_HOME", "/b"}, {"HOME", "/c"}});
    CHECK(Environment::read().cache_dir == "/a");
  }
  {
    Scoped env({{"FLASHPLUS_CACHE_DIR", nullptr}, {"XDG_CACHE_HOME", "/b"}, {"HOME", "/c"}});
    CHECK(Environment::read().cache_dir == "/b/flashplus");
  }
  for (const char *xdg : {static_cast<const char *>(nullptr), "", "relative"}) {
    Scoped env({{"FLASHPLUS_CACHE_DIR", ""}, {"XDG_CACHE_HOME", xdg}, {"HOME", "/c"}});
    CHECK(Environment::read().cache_dir == "/c/.cache/flashplus");
  }
  Scoped env({{"FLASHPLUS_CACHE_DIR", nullptr}, {"XDG_CACHE_HOME", nullptr}, {"HOME", nullptr}});
  CHECK(Environment::read().cache_dir == "");
}

TEST_CASE("what a late compilation is") {
  Scoped env({{"FLASHPLUS_LATE_COMPILE", "error"}});
  CHECK(Environment::read().late_compile == "error");
}

TEST_CASE("the number of CPU workers") {
  for (auto [text, threads] : {std::pair{"3", 3},
                               {"0", 0},
                               {"-1", 0},
                               {"", 0},
                               {"four", 0},
                               {"3x", 0},
                               {"99999999999999", 0},
                               {"1000000", kMaxThreads}}) {
    Scoped env({{"FLASHPLUS_NUM_THREADS", text}});
    CHECK_MESSAGE(Environment::read().num_threads == threads, text);
  }
}

TEST_CASE("values that say nothing are said, and are as if unset") {
  for (const char *text : {"four", "-1", "3x", "99999999999999"}) {
    Scoped env({{"FLASHPLUS_NUM_THREADS", text}});
    const Environment e = Environment::read();
    REQUIRE_MESSAGE(e.problems.size() == 1, text);
    CHECK(e.problems[0].find(std::string("$FLASHPLUS_NUM_THREADS is '") + text + "'") == 0);
  }
  {
    Scoped env({{"FLASHPLUS_NUM_THREADS", "5000"}});
    const Environment e = Environment::read();
    REQUIRE(e.problems.size() == 1);
    CHECK(e.problems[0] == "$FLASHPLUS_NUM_THREADS is 5000; at most 4096 are used");
  }
  Scoped env({{"FLASHPLUS_NUM_THREADS", nullptr}});
  CHECK(Environment::read().problems.empty());
}

TEST_CASE("names like ours that nothing reads are said, with the nearest that there is") {
  for (auto [name, nearest] : {std::pair{"FLASHPLUS_CACHE_DRI", "FLASHPLUS_CACHE_DIR"},
                               {"FLASHPLUS_CACHEDIR", "FLASHPLUS_CACHE_DIR"},
                               {"FLASHPLUS_NUM_THREAD", "FLASHPLUS_NUM_THREADS"},
                               {"FLASHPLUS_THREADS", "FLASHPLUS_NUM_THREADS"},
                               {"FLASHPLUS_PTAXS", "FLASHPLUS_PTXAS"},
                               {"FLASHPLUS_LOGS", "FLASHPLUS_LOG"},
                               {"FLASHPLUS_LIBRAY", "FLASHPLUS_LIBRARY"}}) { // which Python reads
    Scoped env({{name, "/anything"}});
    const Environment e = Environment::read();
    REQUIRE_MESSAGE(e.problems.size() == 1, name);
    CHECK(e.problems[0] == "$" + std::string(name) +
                               " is set, and nothing reads a variable of that name; the nearest is $" +
                               nearest);
  }
  for (const char *name :
       {"FLASHPLUS_LIBRARY", "FLASHPLUS_COMMAND", "FLASHPLUS_FACE", "FLASHPLUS_CLI",
        "FLASHPLUS_FAKE_COMPILER", "FLASHPLUS_TEST_ANYTHING", "FLASHPLUSX", "FLASH_ATTENTION_X"}) {
    Scoped env({{name, "x"}}); // read by others, or not ours
    CHECK_MESSAGE(Environment::read().problems.empty(), name);
  }
  const std::string long_name = "FLASHPLUS_" + std::string(100'000, 'X');
  Scoped env({{long_name.c_str(), "x"}});
  REQUIRE(Environment::read().problems.size() == 1);
  CHECK(Environment::read().problems[0].size() < 200);
}

TEST_CASE("paths where nothing is, or nothing of use, are said") {
  for (const char *name :
       {"FLASHPLUS_TUNING", "FLASHPLUS_PTXAS", "FLASHPLUS_NVJITLINK", "FLASHPLUS_COMPILER"}) {
    for (const char *good : {"", "off", "/bin/sh", "name-without-a-folder"}) {
      Scoped env({{name, good}});
      const bool is_no_file =
          name == std::string("FLASHPLUS_TUNING") && good == std::string("name-without-a-folder");
      CHECK_MESSAGE(Environment::read().problems.empty() == !is_no_file, name << "=" << good);
    }
    Scoped env({{name, "/nope/nothing"}});
    const Environment e = Environment::read();
    REQUIRE_MESSAGE(e.problems.size() == 1, name);
    CHECK(e.problems[0].starts_with("$" + std::string(name) + " is '/nope/nothing', which cannot be "));
    CHECK(e.problems[0].ends_with("No such file or directory"));
  }
  Scoped env({{"FLASHPLUS_PTXAS", "/etc/passwd"}}); // which is there, and no program
  REQUIRE(Environment::read().problems.size() == 1);
  CHECK(Environment::read().problems[0].find("Permission denied") != std::string::npos);
}

TEST_CASE("the size of the cache, and the folders that are only read") {
  for (auto [text, bytes, problems] : {std::tuple{"", int64_t(-1), 0},
                                       {"0", 0, 0},
                                       {"1000", -1, 1},
                                       {"1023K", -1, 1},
                                       {"1", -1, 1},
                                       {"1024K", 1 << 20, 0},
                                       {"1048576", 1 << 20, 0},
                                       {"3M", 3 << 20, 0},
                                       {"2G", int64_t(2) << 30, 0},
                                       {"2T", -1, 1},
                                       {"-1", -1, 1},
                                       {"G", -1, 1},
                                       {"9000000000000000G", -1, 1}}) {
    Scoped env({{"FLASHPLUS_CACHE_SIZE", text}});
    const Environment e = Environment::read();
    CHECK_MESSAGE(e.cache_bytes == bytes, text);
    CHECK_MESSAGE(int(e.problems.size()) == problems, text);
  }
  Scoped env({{"FLASHPLUS_CACHE_PATH", "/a:/b::"}, {"FLASHPLUS_RECORD_MISSES", "/m"}});
  CHECK(Environment::read().cache_path == std::vector<std::string>{"/a", "/b"});
  CHECK(Environment::read().record_misses == "/m");
}

TEST_CASE("the limits of a compilation") {
  {
    Scoped env({{"FLASHPLUS_COMPILE_SECONDS", nullptr},
                {"FLASHPLUS_COMPILE_MEMORY", nullptr},
                {"FLASHPLUS_COMPILE_IN_PROCESS", nullptr}});
    const Environment e = Environment::read();
    CHECK(e.compile_seconds == -1);
    CHECK(e.compile_bytes == -1);
    CHECK(!e.compile_in_process);
    CHECK(e.problems.empty());
  }
  for (auto [text, seconds, problems] : {std::tuple{"0", int64_t(0), 0},
                                         {"60", 60, 0},
                                         {"-1", -1, 1},
                                         {"1.5", -1, 1},
                                         {"soon", -1, 1},
                                         {"3000000000", -1, 1}}) {
    Scoped env({{"FLASHPLUS_COMPILE_SECONDS", text}});
    const Environment e = Environment::read();
    CHECK_MESSAGE(e.compile_seconds == seconds, text);
    CHECK_MESSAGE(int(e.problems.size()) == problems, text);
  }
  for (auto [text, here, problems] :
       {std::tuple{"1", true, 0}, {"0", false, 0}, {"yes", false, 1}, {"2", false, 1}}) {
    Scoped env({{"FLASHPLUS_COMPILE_IN_PROCESS", text}, {"FLASHPLUS_COMPILE_MEMORY", "2G"}});
    const Environment e = Environment::read();
    CHECK_MESSAGE(e.compile_in_process == here, text);
    CHECK_MESSAGE(int(e.problems.size()) == problems, text);
    CHECK(e.compile_bytes == int64_t(2) << 30);
  }
}

TEST_CASE("paths of libraries") {
  Scoped env({{"FLASHPLUS_COMPILER", "/x.so"}, {"FLASHPLUS_NVJITLINK", "/y.so"}});
  CHECK(Environment::read().compiler == "/x.so");
  CHECK(Environment::read().nvjitlink == "/y.so");
  setenv("FLASHPLUS_PTXAS", "/z", 1);
  setenv("FLASHPLUS_CUDA_TARGET", "sm_80", 1);
  setenv("FLASHPLUS_TUNING", "/somewhere/records", 1);
  setenv("FLASHPLUS_CUDA_SHARED_MEMORY", "101376", 1);
  CHECK(Environment::read().ptxas == "/z");
  CHECK(Environment::read().cuda_target == "sm_80");
  setenv("FLASHPLUS_CPU_TARGET", "x86-64-v3", 1);
  CHECK(Environment::read().cuda_shared_memory == 101376);
  CHECK(Environment::read().tuning == "/somewhere/records");
  CHECK(Environment::read().cpu_target == "x86-64-v3");
  setenv("FLASHPLUS_DEBUG_KERNELS", "gdb,perf", 1);
  CHECK(Environment::read().debug_kernels == "gdb,perf");
  for (const char *name :
       {"FLASHPLUS_TUNING", "FLASHPLUS_PTXAS", "FLASHPLUS_CPU_TARGET", "FLASHPLUS_DEBUG_KERNELS",
        "FLASHPLUS_CUDA_TARGET", "FLASHPLUS_CUDA_SHARED_MEMORY"})
    unsetenv(name);
  CHECK(Environment::read().cuda_shared_memory == 0);
}

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
constexpr bool kChecksLeaks = true;
#else
constexpr bool kChecksLeaks = false;
#endif

TEST_CASE("as a process with more rights than its caller" * doctest::skip()) { // run by the one below
  CHECK(::getauxval(AT_SECURE) != 0);
  const Environment e = Environment::read();
  CHECK(e.compiler.empty());
  CHECK(e.ptxas.empty());
  CHECK(e.cache_path.empty());
  CHECK(e.cache_dir.empty());
  REQUIRE(e.problems.size() == 1); // names are not looked at, either
  CHECK(e.problems[0].starts_with("the process has more rights than its caller, so no environment variable"));
}

TEST_CASE("a set-uid program does not do what its caller's environment says") {
  if (kChecksLeaks) {
    MESSAGE("skipped: a leak checker traces its process, which may not be done to a set-uid one");
    return;
  }
  TemporaryFolder folder;
  const std::string program = folder.path("program");
  std::filesystem::copy_file("/proc/self/exe", program);
  struct statvfs mounted = {};
  if (::geteuid() != 0 || ::chown(program.c_str(), 65534, 65534) != 0 ||
      ::chmod(program.c_str(), 04755) != 0 || ::statvfs(program.c_str(), &mounted) != 0 ||
      (mounted.f_flag & ST_NOSUID)) {
    MESSAGE("skipped: needs root, and a folder for temporary files where programs may be set-uid");
    return;
  }
  Scoped env({{"FLASHPLUS_COMPILER", "/tmp/mine.so"},
              {"FLASHPLUS_PTXAS", "/tmp/mine"},
              {"FLASHPLUS_CACHE_PATH", "/tmp/mine"},
              {"FLASHPLUS_CACHE_DIR", "/tmp/mine"},
              {"FLASHPLUS_CACHE_DRI", "/tmp/mine"}});
  CHECK(std::system((program + " --no-skip -tc='as a process with more rights*' >/dev/null").c_str()) == 0);
}
