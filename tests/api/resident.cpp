// SPDX-License-Identifier: BSD-3-Clause
// resident: memory of a process that embeds the library and runs one CPU kernel. Runs itself twice on one
// cache folder: the first process compiles the kernel, the second finds it there. The second must stay within
// kLimit beyond its tensors, all of it counted (the program, the C and C++ libraries, the thread stacks), and
// never map the compiler library. Exit status 77: there is no compiler library.
#include <flashplus/flashplus.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr double kLimit = 30; // MiB
constexpr int64_t kSeqlen = 1024, kHeads = 8, kHeadDim = 128;
constexpr int kThreads = 4; // not the machine's: scratch is a thread's

double residentMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:"))
      return std::strtod(line.c_str() + 6, nullptr) / 1024;
  return 1e9; // fails the limit
}

/// Mapped libraries that only a compilation needs, and libflashplus.so itself.
struct Mapped {
  bool compiler = false, library = false;
};
Mapped mapped() {
  Mapped found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::string file = line.substr(line.rfind('/') + 1);
    for (const char *name : {"libflashplus-compiler", "libLLVM", "libMLIR"})
      found.compiler = found.compiler || file.starts_with(name);
    found.library = found.library || file.starts_with("libflashplus.so");
  }
  return found;
}

int fail(const std::string &why) {
  std::fprintf(stderr, "resident: %s\n", why.c_str());
  return 1;
}

int runKernel(bool warm, const char *cache_dir) {
  const double at_start = residentMiB();
  std::vector<float> tensors[4];
  for (auto &t : tensors)
    t.assign(kSeqlen * kHeads * kHeadDim, 0.5f); // written, so resident
  const double tensor_bytes = 4.0 * double(kSeqlen * kHeads * kHeadDim) * sizeof(float) / (1 << 20);
  const double with_tensors = residentMiB();

  flashplus_context_options options = {};
  options.struct_size = sizeof options;
  options.cache_dir = cache_dir;
  options.num_threads = kThreads;
  options.compile_in_process = 1; // so that what the cold process maps shows that the check can fail
  flashplus_context *context = nullptr;
  if (flashplus_context_create(&options, &context) != FLASHPLUS_OK)
    return fail(flashplus_last_error());
  const char *description = ""; // may open the compiler library, so it is not for the warm process
  if (!warm && flashplus_describe(context, &description) == FLASHPLUS_OK &&
      std::strstr(description, "\"state\":\"missing")) {
    std::puts("skipped: there is no compiler library");
    return 77;
  }
  int64_t shape[4] = {1, kSeqlen, kHeads, kHeadDim};
  DLTensor views[4] = {};
  for (int i = 0; i < 4; ++i) {
    views[i].data = tensors[i].data();
    views[i].device = {kDLCPU, 0};
    views[i].ndim = 4;
    views[i].dtype = {kDLFloat, 32, 1};
    views[i].shape = shape;
  }
  flashplus_forward_args args = FLASHPLUS_FORWARD_ARGS_INIT;
  args.q = &views[0];
  args.k = &views[1];
  args.v = &views[2];
  args.o = &views[3];
  args.causal = 1;
  tensors[3].assign(tensors[3].size(), 0);
  for (int run = 0; run < 3; ++run)
    if (flashplus_forward(context, &args, nullptr) != FLASHPLUS_OK)
      return fail(flashplus_last_error());
  for (float value : tensors[3])
    if (!(value > 0.499f && value < 0.501f)) // a mean of equal rows
      return fail("the output is " + std::to_string(value) + ", not 0.5");

  const double resident = residentMiB();
  const Mapped maps = mapped();
  flashplus_counters counters = {};
  counters.struct_size = sizeof counters;
  flashplus_get_counters(context, &counters);
  std::printf("%s: resident %.1f MiB, beyond the tensors %.1f MiB (%.1f at the start of main, %.1f from "
              "context and kernel); "
              "compiled %lld, from disk %lld\n",
              warm ? "warm" : "cold", resident, resident - tensor_bytes, at_start, resident - with_tensors,
              static_cast<long long>(counters.compiles), static_cast<long long>(counters.disk_hits));
  flashplus_context_destroy(context);
  if (!maps.library)
    return fail("/proc/self/maps does not show libflashplus.so");
  // That the cold process does map the compiler shows that the warm one's check can see it.
  if (maps.compiler == warm)
    return fail(warm ? "the compiler library is mapped"
                     : "the compiler library is not seen although it compiled");
  if (warm && (counters.compiles != 0 || counters.disk_hits != 1))
    return fail("the kernel did not come from the cache");
  if (warm && resident - tensor_bytes > kLimit)
    return fail("more than " + std::to_string(int(kLimit)) + " MiB beyond the tensors");
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  if (argc == 3)
    return runKernel(std::strcmp(argv[1], "warm") == 0, argv[2]);
  std::string folder = (std::filesystem::temp_directory_path() / "flashplus-resident-XXXXXX").string();
  if (!mkdtemp(folder.data()))
    return fail("no temporary folder");
  int result = 0;
  for (const char *mode : {"cold", "warm"}) {
    char *arguments[] = {argv[0], const_cast<char *>(mode), folder.data(), nullptr};
    pid_t child = 0;
    int status = 0;
    if (posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environ) != 0 ||
        waitpid(child, &status, 0) != child)
      result = fail("it cannot run itself");
    else
      result = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (result)
      break;
  }
  std::filesystem::remove_all(folder);
  return result;
}
