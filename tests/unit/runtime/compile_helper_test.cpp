// SPDX-License-Identifier: BSD-3-Clause
// The compiler in a process of its own: whatever becomes of that one, this one has a status and a reason.
#include "runtime/kernels/compiler_library.h"
#include "templates/forward/planner.h"
#include "tests/soak.h"
#include "tests/tools/temporary.h"
#include "tests/unit/cache/children.h"
#include "tests/unit/runtime/libraries.h"

#include <doctest/doctest.h>

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>

using namespace flashplus;
using namespace flashplus::test;
using namespace std::chrono_literals;

namespace {

const Target kTarget{Isa::X86_64_v3, 0};

/// Of the fake compiler (fake_compiler.cpp), which does what the head dim asks for.
Result<Compiled> compile(CompilerLibrary &library, int head_dim = 32) {
  KernelSpec spec;
  spec.head_dim_qk = spec.head_dim_v = head_dim;
  spec.alignment = dtypeBytes(spec.dtype);
  const Schedule schedule = feasibleSchedules(spec, offlineProfile(kTarget)).front();
  return library.compile(spec.text(), schedule.text(), kTarget.text());
}

struct Library : CompilerLibrary {
  explicit Library(const HelperLimits &limits = {}, const std::string &helper = "")
      : CompilerLibrary(kFakeCompiler, "", "", "",
                        {.limits = limits, .helper = helper, .log = [this](const std::string &line) {
                           std::lock_guard lock(mutex);
                           lines.push_back(line);
                         }}) {}
  std::mutex mutex;
  std::vector<std::string> lines;
};

bool contains(const std::string &text, const std::string &what) {
  return text.find(what) != std::string::npos;
}

bool exists(pid_t process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  return std::getline(status, text) && !contains(text, ") Z ");
}

bool endsSoon(pid_t process) {
  for (int i = 0; i < 1000 && exists(process); ++i)
    std::this_thread::sleep_for(5ms);
  return !exists(process);
}

std::string beside(const std::string &name) {
  return std::filesystem::path(kFakeCompiler).parent_path() / name;
}

} // namespace

TEST_CASE("a helper is started with the first kernel, kept for the next, and is no child of this process") {
  Library library;
  CHECK(library.processes().empty());
  REQUIRE(compile(library).isOk());
  const std::vector<pid_t> first = library.processes();
  REQUIRE(first.size() == 1);
  CHECK(exists(first[0]));
  REQUIRE(compile(library).isOk());
  CHECK(library.processes() == first);
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1); // who waits for all its children does not wait for it
  CHECK(errno == ECHILD);
  library.rest();
  CHECK(library.processes().empty());
  CHECK(endsSoon(first[0]));
  CHECK(compile(library).isOk());
  CHECK(library.lines.empty());
}

TEST_CASE("threads compile side by side, each in a process of its own") {
  Library library;
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { good += compile(library, 23).isOk(); });
  for (std::thread &thread : threads)
    thread.join();
  CHECK(good == 8);
  CHECK(library.processes().size() > 1);
  CHECK(std::chrono::steady_clock::now() - start < 8 * 300ms);
}

TEST_CASE("a crash is a status with the signal and the last lines, and the next kernel is compiled") {
  Library library;
  Status failed = compile(library, 19).status();
  CHECK(failed.code() == StatusCode::CompilerCrashed);
  CHECK_MESSAGE(contains(failed.message(), "signal 6 (SIGABRT)"), failed.message());
  CHECK_MESSAGE(contains(failed.message(), "a first line | the last line"), failed.message());
  CHECK(contains(failed.message(), "dqk=19"));
  failed = compile(library, 20).status();
  CHECK(failed.code() == StatusCode::CompilerCrashed);
  CHECK_MESSAGE(contains(failed.message(), "signal 11 (SIGSEGV)"), failed.message());
  CHECK(!contains(failed.message(), "a first line"));
  CHECK(compile(library).isOk());
}

TEST_CASE("what hangs is ended after its time, and says so") {
  Library library({.seconds = 1});
  REQUIRE(compile(library).isOk());
  const pid_t process = library.processes().at(0);
  const Status failed = compile(library, 21).status();
  CHECK(failed.code() == StatusCode::TimedOut);
  CHECK_MESSAGE(contains(failed.message(), "not done after 1 s, the limit of $FLASHPLUS_COMPILE_SECONDS"),
                failed.message());
  CHECK(endsSoon(process));
  CHECK(compile(library).isOk());
}

#ifndef FLASHPLUS_TEST_SANITIZED // where the helper has no limit of memory
TEST_CASE("what takes more memory than its limit is out of memory, and says so") {
  Library library({.bytes = 256 << 20});
  const Status failed = compile(library, 22).status();
  CHECK(failed.code() == StatusCode::OutOfMemory);
  CHECK_MESSAGE(contains(failed.message(), "(its limit is 256 MiB, $FLASHPLUS_COMPILE_MEMORY)"),
                failed.message());
  CHECK(compile(library).isOk());
}
#endif

TEST_CASE("one that is killed while it is idle is replaced; one that is killed at work is tried once more") {
  Library library;
  REQUIRE(compile(library).isOk());
  const pid_t first = library.processes().at(0);
  kill(first, SIGKILL);
  REQUIRE(endsSoon(first));
  CHECK(compile(library).isOk());
  const Status failed = compile(library, 24).status();
  CHECK(failed.code() == StatusCode::IoError);
  CHECK_MESSAGE(contains(failed.message(), "was killed, twice"), failed.message());
  CHECK(compile(library).isOk());
}

TEST_CASE("killed at any moment: a kernel or a reason, soon") {
  Library library;
  std::atomic<bool> stop{false};
  std::thread killer([&] {
    for (unsigned state = 1; !stop;) {
      state = state * 1664525 + 1013904223;
      std::this_thread::sleep_for(std::chrono::microseconds(state >> 20));
      for (const pid_t process : library.processes())
        if (process > 0 && kill(process, SIGKILL) == 0)
          break;
    }
  });
  int good = 0, lost = 0;
  for (int i = 0, runs = soakCount(1000); i < runs; ++i) {
    auto compiled = compile(library);
    good += compiled.isOk();
    lost += !compiled && compiled.status().code() == StatusCode::IoError;
    CHECK_MESSAGE((compiled.isOk() || compiled.status().code() == StatusCode::IoError),
                  compiled.status().message());
    REQUIRE(good + lost == i + 1);
  }
  stop = true;
  killer.join();
  CHECK(good > 0);
  CHECK(library.lines.empty()); // it is not taken for one that does not work
  CHECK(compile(library).isOk());
}

TEST_CASE("without a helper that works the compiler is opened in this process, and that is said once") {
  TemporaryFolder folder;
  writeText(folder.path("text"), "no program");
  writeText(folder.path("script"), "#!/bin/sh\necho 'it is broken' >&2\nexit 3\n");
  std::filesystem::permissions(folder.path("script"), std::filesystem::perms(0700));
  for (const auto &[helper, why] :
       {std::pair<std::string, std::string>{"/nowhere/helper",
                                            "'/nowhere/helper', in which kernels are "
                                            "compiled, could not be started: No such file"},
        {folder.path("text"), "could not be started: Permission denied"},
        {folder.path("script"), "ended with code 3: it is broken"},
        {beside("fake_helper_other_build"), "is build another build and this runtime needs build "}}) {
    CAPTURE(helper);
    Library library({}, helper);
    CHECK(compile(library).isOk());
    CHECK(compile(library).isOk());
    CHECK(library.worksHere());
    REQUIRE(library.lines.size() == 1);
    CHECK_MESSAGE(contains(library.lines[0], why), library.lines[0]);
    CHECK(contains(library.lines[0], "; kernels are compiled in this process"));
  }
}

TEST_CASE("a helper whose loader finds no room is no helper that does not work") {
  TemporaryFolder folder;
  const std::string script = folder.path("script");
  for (const char *said :
       {"libz3.so.4: cannot map zero-fill pages", "libLLVM.so: failed to map segment",
        "cannot allocate memory in static TLS block", "cannot create TLS data structures"}) {
    writeText(script, "#!/bin/sh\necho '" + std::string(said) + "' >&2\nexit 127\n");
    std::filesystem::permissions(script, std::filesystem::perms(0700));
    Library library({}, script);
    const Status failed = compile(library).status();
    CHECK_MESSAGE(failed.code() == StatusCode::OutOfMemory, failed.message());
    CHECK(contains(failed.message(), said));
    CHECK(!library.worksHere());
    CHECK(library.lines.empty());
  }
}

TEST_CASE("it ends when this process does, also in the middle of a kernel") {
  for (int head_dim : {32, 21}) { // idle; at work
    CAPTURE(head_dim);
    int pipe_ends[2];
    REQUIRE(pipe2(pipe_ends, O_CLOEXEC) == 0);
    const pid_t child = startChild([&] {
      Library library;
      if (!compile(library))
        return 1;
      const pid_t helper = library.processes().at(0);
      if (write(pipe_ends[1], &helper, sizeof helper) != sizeof helper)
        return 1;
      (void)compile(library, head_dim);
      pause();
      return 0;
    });
    pid_t helper = 0;
    REQUIRE(read(pipe_ends[0], &helper, sizeof helper) == sizeof helper);
    CHECK(exists(helper));
    std::this_thread::sleep_for(20ms);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    CHECK(endsSoon(helper));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
  }
}

TEST_CASE("descriptors, blocked and ignored signals of this process are not the helper's") {
  TemporaryFolder folder;
  writeText(folder.path("open"), "x");
  const int first = open(folder.path("open").c_str(), O_RDONLY), open_file = fcntl(first, F_DUPFD, 50);
  REQUIRE(open_file >= 50); // and without O_CLOEXEC
  close(first);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto handler = std::signal(SIGTERM, SIG_IGN);
  Library library;
  const bool good = compile(library).isOk();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  std::signal(SIGTERM, handler);
  REQUIRE(good);
  const std::string of = "/proc/" + std::to_string(library.processes().at(0));
  for (const auto &entry : std::filesystem::directory_iterator(of + "/fd"))
    CHECK(!contains(std::filesystem::read_symlink(entry).string(), folder.path("open")));
  std::ifstream status(of + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("SigIgn:") || line.starts_with("SigBlk:"))
      // the C library keeps two of the real-time signals to itself
      CHECK_MESSAGE((std::stoull(line.substr(7), nullptr, 16) & 0x7fffffff) == 0, line);
  close(open_file);
}

#ifndef FLASHPLUS_TSAN // which does not follow fork() from a process with threads
TEST_CASE("a fork does not wait for kernels, and its child compiles in a helper of its own") {
  Library library;
  REQUIRE(compile(library).isOk());
  const pid_t first = library.processes().at(0);
  std::atomic<bool> is_made{false};
  std::thread busy([&] {
    CHECK(compile(library, 23).isOk());
    is_made = true;
  });
  std::this_thread::sleep_for(20ms);
  int forks_meanwhile = 0; // that began and ended while the kernel was made
  for (int i = 0; i < soakCount(100); ++i) {
    const bool is_busy = !is_made;
    const pid_t child = startChild([&] {
      if (!library.processes().empty() || !compile(library))
        return 1;
      return library.processes().at(0) == first ? 2 : 0;
    });
    forks_meanwhile += is_busy && !is_made;
    REQUIRE(waitAtMost(child, 20s) == 0);
  }
  busy.join();
  CHECK(forks_meanwhile > 0);
  CHECK(library.processes().size() >= 1);
  CHECK(compile(library).isOk());
}

TEST_CASE("the child of a fork keeps no helper of its parent's from ending") {
  int pipe_ends[2];
  REQUIRE(pipe2(pipe_ends, O_CLOEXEC) == 0);
  const pid_t parent = startChild([&] {
    Library library;
    if (!compile(library))
      return 1;
    std::thread busy([&] { (void)compile(library, 21); });
    busy.detach();
    std::this_thread::sleep_for(50ms);
    const pid_t both[2] = {library.processes().at(0), startChild([] { return pause(); })};
    if (write(pipe_ends[1], both, sizeof both) != sizeof both)
      return 1;
    return pause();
  });
  pid_t both[2] = {};
  REQUIRE(read(pipe_ends[0], both, sizeof both) == sizeof both);
  CHECK(exists(both[0]));
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  CHECK(exists(both[1]));
  CHECK(endsSoon(both[0]));
  kill(both[1], SIGKILL);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST_CASE("SIGCHLD ignored, or every child waited for by somebody else: kernels all the same") {
  CHECK(waitAtMost(startChild([] {
                     std::signal(SIGCHLD, SIG_IGN);
                     Library library;
                     return compile(library).isOk() &&
                                    compile(library, 19).status().code() == StatusCode::CompilerCrashed
                                ? 0
                                : 1;
                   }),
                   20s) == 0);
  CHECK(waitAtMost(startChild([] {
                     std::thread reaper([] {
                       for (;;)
                         if (wait(nullptr) < 0)
                           std::this_thread::sleep_for(100us);
                     });
                     reaper.detach();
                     Library library;
                     for (int i = 0; i < 10; ++i) {
                       if (!compile(library) || library.worksHere())
                         return 1;
                       library.rest();
                     }
                     return 0;
                   }),
                   20s) == 0);
}

#ifndef FLASHPLUS_TEST_SANITIZED
TEST_CASE("few descriptors, processes, little stack or memory: a kernel or a reason, and it heals") {
  const bool root = geteuid() == 0; // whom RLIMIT_NPROC does not bind
  for (const auto &[resource, values] :
       {std::pair<int, std::vector<rlim_t>>{RLIMIT_NOFILE, {3, 4, 5, 6, 7, 8, 10, 12, 16}},
        {RLIMIT_NPROC, {0, 1, 2}},
        {RLIMIT_STACK, {16 << 10, 64 << 10, 128 << 10, 512 << 10}},
        {RLIMIT_AS, {8 << 20, 16 << 20, 24 << 20, 32 << 20, 64 << 20, 128 << 20}},
        {RLIMIT_DATA, {1 << 20, 4 << 20, 16 << 20, 64 << 20}}})
    for (const rlim_t value : values) {
      CAPTURE(resource);
      CAPTURE(value);
      if (resource == RLIMIT_NPROC && root)
        continue;
      CHECK(waitAtMost(startChild([&, resource = resource] {
                         Library library({.seconds = 10});
                         if (!compile(library)) // what this process needs itself is there
                           return 1;
                         library.rest();
                         rlimit before{};
                         getrlimit(__rlimit_resource_t(resource), &before);
                         const rlimit low{std::min(value, before.rlim_max), before.rlim_max};
                         setrlimit(__rlimit_resource_t(resource), &low);
                         auto compiled = compile(library);
                         setrlimit(__rlimit_resource_t(resource), &before);
                         if (!compiled && compiled.status().message().empty())
                           return 2;
                         if (library.worksHere())
                           return 3;
                         return compile(library).isOk() ? 0 : 4;
                       }),
                       30s) == 0);
    }
}
#endif
#endif
