// SPDX-License-Identifier: BSD-3-Clause
// stampede: processes that start at the same moment with an empty cache and want the same kernels, with the
// compiler that is shipped. Each kernel is to be compiled about once between them, in about the time that one
// process needs; every process gets its kernels, and results as one process has them; nothing is lost and
// nothing is left over. 64 processes and 16 kernels in a soak (FLASHPLUS_SOAK=1), of which the time is then
// part of the verdict; a run outside a soak has 4 processes for 4 kernels.
//
//   stampede [PROCESSES KERNELS]
//
// Needs nothing but the libraries beside it. Exit status 77: there is no compiler library.
#include "tests/soak.h"
#include "tests/tools/temporary.h"
#include "tests/unit/runtime/problem.h"

#include <flashplus/flashplus.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace {

using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr int kMostKernels = 64;
constexpr double kMostCompiles = 20.0 / 16, kMostTimes = 2;
constexpr auto kHangs = std::chrono::seconds(240);

/// What the processes have in common: a file that all of them map.
struct Shared {
  std::atomic<int> ready{0}, go{0};
  std::atomic<int64_t> compiles{0}, disk_hits{0}, misses{0}, failed{0}, wrong{0}, kept_badly{0};
  std::atomic<uint64_t> result[kMostKernels] = {}; ///< Of the first process; 0: none yet.

  static Shared *open(const std::string &path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ::ftruncate(fd, sizeof(Shared)) != 0)
      return nullptr;
    void *memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    return memory == MAP_FAILED ? nullptr : static_cast<Shared *>(memory); // of zeros, as it should be
  }
};

uint64_t hashOf(const float *values, size_t count) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    hash = (hash ^ bits) * 0x100000001b3;
  }
  return hash | 1;
}

/// A process of them. `offline`: it may compile nothing.
int work(Shared &shared, const char *cache, int kernels, bool offline) {
  ++shared.ready;
  while (!shared.go)
    ::usleep(200);
  flashplus_context_options options = {};
  options.struct_size = sizeof options;
  options.cache_dir = cache;
  options.num_threads = 1;
  options.offline = offline;
  flashplus_context *context = nullptr;
  if (flashplus_context_create(&options, &context) != FLASHPLUS_OK) {
    std::fprintf(stderr, "stampede: %s\n", flashplus_last_error());
    return 1;
  }
  for (int i = 0; i < kernels; ++i) {
    const int head_dim = 32 + 8 * i; // of which each has a kernel of its own
    constexpr int kSeqlen = 16;
    flashplus::test::Problem p(1, kSeqlen, kSeqlen, 1, 1, head_dim);
    for (flashplus::test::HostTensor *tensor : {&p.q, &p.k, &p.v})
      for (int at = 0; at < kSeqlen * head_dim; ++at)
        tensor->as<float>()[at] = float((at * 37 + i) % 101) / 50 - 1;
    if (flashplus_forward(context, &p.args, nullptr) != FLASHPLUS_OK) {
      ++shared.failed;
      std::fprintf(stderr, "stampede: head dim %d: %s\n", head_dim, flashplus_last_error());
      continue;
    }
    const uint64_t result = hashOf(p.o.as<float>(), size_t(kSeqlen * head_dim));
    uint64_t first = 0;
    shared.wrong += !shared.result[i].compare_exchange_strong(first, result) && first != result;
  }
  flashplus_counters counters = {};
  counters.struct_size = sizeof counters;
  flashplus_get_counters(context, &counters);
  shared.compiles += counters.compiles;
  shared.disk_hits += counters.disk_hits;
  shared.misses += counters.miss_damaged + counters.miss_unreadable + counters.miss_refused;
  shared.kept_badly += counters.publish_failures;
  flashplus_context_destroy(context);
  return 0;
}

/// Seconds from the word until the last of `processes` has ended; less than 0 if one did not, or failed.
double secondsOf(const std::string &file, Shared &shared, const std::string &cache, int processes,
                 int kernels, bool offline = false) {
  const std::string count = std::to_string(kernels);
  std::vector<pid_t> children;
  shared.ready = shared.go = 0;
  for (int i = 0; i < processes; ++i) {
    const char *arguments[] = {"stampede",          "--work", file.c_str(), cache.c_str(), count.c_str(),
                               offline ? "1" : "0", nullptr};
    pid_t child = 0;
    if (::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, const_cast<char **>(arguments), environ) ==
        0)
      children.push_back(child);
  }
  const auto end = Clock::now() + kHangs;
  while (shared.ready < int(children.size()) && Clock::now() < end)
    ::usleep(1000);
  const auto start = Clock::now();
  shared.go = 1;
  bool good = int(children.size()) == processes;
  for (const pid_t child : children) {
    int status = -1;
    while (::waitpid(child, &status, WNOHANG) == 0 && Clock::now() < end)
      ::usleep(1000);
    if (status != 0) {
      good = false;
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      std::fprintf(stderr, "stampede: a process %s\n", status == -1 ? "did not end" : "failed");
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return good ? seconds : -1;
}

int fails = 0;
void check(bool holds, const char *what) {
  if (holds)
    return;
  ++fails;
  std::printf("FAILED: %s\n", what);
}

/// Files below `folder` with this ending.
int filesOf(const std::string &folder, const std::string &ending) {
  int count = 0;
  for (const auto &item : fs::recursive_directory_iterator(folder))
    count += item.is_regular_file() && item.path().string().ends_with(ending);
  return count;
}

/// One round; how many times the time of one process it took.
double round(int processes, int kernels) {
  flashplus::test::TemporaryFolder folder;
  const std::string file = folder.path("shared"), cache = folder.path("cache"), alone = folder.path("alone");
  Shared *shared = Shared::open(file);
  if (!shared) {
    check(false, "memory to share");
    return 0;
  }
  const double one = secondsOf(file, *shared, alone, 1, kernels);
  const int64_t keys = shared->compiles;
  check(one > 0 && keys >= kernels && shared->disk_hits == 0, "one process compiles each kernel");
  shared->compiles = 0;
  const double many = secondsOf(file, *shared, cache, processes, kernels);
  const int64_t compiles = shared->compiles, most = int64_t(kMostCompiles * double(keys) + 0.5);
  const double times = many / one;
  std::printf(
      "%d processes, %lld kernels: %lld compilations (at most %lld), %.2f s, %.2f times the %.2f s of one "
      "process, %lld wrong, %lld failed\n",
      processes, (long long)keys, (long long)compiles, (long long)most, many, times, one,
      (long long)shared->wrong, (long long)shared->failed);
  check(many > 0, "all processes end, and in time");
  check(compiles >= keys && compiles <= most, "each kernel is compiled about once");
  check(compiles + shared->disk_hits == processes * keys, "each process gets each kernel");
  check(shared->wrong == 0, "results are those of one process");
  check(shared->failed == 0 && shared->misses == 0 && shared->kept_badly == 0, "nothing fails");
  check(filesOf(cache, ".fpk") == keys, "the cache has each kernel");
  check(filesOf(cache, ".tmp") == 0, "no temporary is left");
  shared->compiles = shared->disk_hits = 0;
  check(secondsOf(file, *shared, cache, 1, kernels, /*offline=*/true) > 0, "offline it runs");
  check(shared->disk_hits == keys && shared->compiles == 0 && shared->failed == 0 && shared->wrong == 0,
        "offline each kernel is found, whole");
  ::munmap(shared, sizeof *shared);
  return times;
}

} // namespace

int main(int count, char **arguments) {
  if (count == 6 && std::string(arguments[1]) == "--work") {
    Shared *shared = Shared::open(arguments[2]);
    return shared ? work(*shared, arguments[3], std::atoi(arguments[4]), *arguments[5] == '1') : 1;
  }
  if (FLASHPLUS_HAS_COMPILER == 0 && !std::getenv("FLASHPLUS_COMPILER")) {
    std::printf("skipped: there is no compiler library\n");
    return 77;
  }
  const int processes = count == 3 ? std::atoi(arguments[1]) : flashplus::test::soakCount(64, 4);
  const int kernels = count == 3 ? std::atoi(arguments[2]) : flashplus::test::soakCount(16, 4);
  if ((count != 1 && count != 3) || processes < 1 || kernels < 1 || kernels > kMostKernels) {
    std::fprintf(stderr, "stampede [PROCESSES KERNELS]: at least 1 of each, and at most %d kernels\n",
                 kMostKernels);
    return 2;
  }
  std::vector<double> times;
  for (int i = 0; i < (flashplus::test::soak() ? 3 : 1); ++i)
    times.push_back(round(processes, kernels));
  std::sort(times.begin(), times.end());
  if (flashplus::test::soak()) // beside other tests it says little
    check(times[times.size() / 2] <= kMostTimes, "the median of three is at most twice one process's time");
  std::printf("stampede: %s\n", fails ? "FAILED" : "good");
  return fails ? 1 : 0;
}
