// SPDX-License-Identifier: BSD-3-Clause
// A compiler library without LLVM, for tests: its kernels count work items (object_builder.h). Built several
// times; each but the first is wrong in one way.
#include "compiler/entry.h"
#include "tests/unit/runtime/object_builder.h"

#include "build_id.h"
#include "templates/forward/planner.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <unistd.h>

using namespace flashplus;

namespace {

void give(flashplus_compile_result *result, const Status &status, std::span<const uint8_t> bytes) {
  *result = {};
  result->status = int(status.code());
  result->size = status ? bytes.size() : status.message().size();
  const void *from = status ? static_cast<const void *>(bytes.data()) : status.message().data();
  result->data = static_cast<uint8_t *>(std::malloc(result->size + 1));
  std::memcpy(result->data, from, result->size);
}

Result<Artifact> make(const flashplus_compile_request &request) {
  auto spec = KernelSpec::parse(request.spec);
  if (!spec)
    return spec.status();
  auto schedule = Schedule::parse(request.schedule);
  if (!schedule)
    return schedule.status();
  auto target = Target::parse(request.target);
  if (!target)
    return target.status();
  // A head dim by which tests ask for a failure: of the schedule for large problems, or of all.
  if (spec->op == Operation::Forward &&
      (spec->head_dim_qk == 17 || (spec->head_dim_qk == 18 && schedule->get("tile_m") > 12)))
    return Status(StatusCode::CompileFailed, "the schedule spills");
  // And by which they ask for worse, in a process that may go down.
  switch (spec->op == Operation::Forward ? spec->head_dim_qk : 0) {
  case 19:
    std::fputs("a first line\nthe last line\n", stderr);
    std::abort();
  case 20:
    raise(SIGSEGV);
    break;
  case 21:
    for (;;)
      pause();
  case 22:
    for (std::vector<std::vector<char>> all;;)
      all.emplace_back(16 << 20, 'x');
  case 23:
    usleep(700'000);
    break;
  case 24:
    raise(SIGKILL);
    break;
  default:
    break;
  }
  auto launch = launchSchema(*spec, *schedule, *target);
  if (!launch)
    return launch.status();
  Artifact artifact;
  artifact.code = test::countingKernel(launch->entry, spec->op == Operation::Forward);
  artifact.launch = *launch;
  artifact.provenance = "fake compiler";
  return artifact;
}

void compile(const flashplus_compile_request *request, flashplus_compile_result *result) {
  auto artifact = make(*request);
  if (!artifact)
    return give(result, artifact.status(), {});
  result->times = {};
  give(result, Status::ok(), serializeArtifact(*artifact));
  result->times = {1, 2, 3, 4, 5};
}

void print(const flashplus_compile_request *, const char *stage, flashplus_compile_result *result) {
  const std::string text = std::string("stage ") + stage;
  give(result, Status::ok(), {reinterpret_cast<const uint8_t *>(text.data()), text.size()});
}

void release(flashplus_compile_result *result) {
  std::free(result->data);
  result->data = nullptr;
}

int nvjitlink(const char *, char *text, size_t size) {
  std::strncpy(text, "none here", size);
  return 0;
}

void (*give_up)(int, const char *);

void serve(void (*told)(int, const char *)) {
  give_up = told;
  std::set_new_handler([] { give_up(int(StatusCode::OutOfMemory), "the compiler ran out of memory"); });
}

#if FAKE == 1
constexpr flashplus_compiler_table table = {
    FLASHPLUS_COMPILER_ABI, "another build", "fake", compile, print, release, nvjitlink, nvjitlink, serve};
#elif FAKE == 2
constexpr flashplus_compiler_table table = {FLASHPLUS_COMPILER_ABI + 1,
                                            FLASHPLUS_BUILD_ID,
                                            "fake",
                                            compile,
                                            print,
                                            release,
                                            nvjitlink,
                                            nvjitlink,
                                            serve};
#else
constexpr flashplus_compiler_table table = {
    FLASHPLUS_COMPILER_ABI, FLASHPLUS_BUILD_ID, "fake", compile, print, release, nvjitlink, nvjitlink, serve};
#endif

} // namespace

#if FAKE == 3
extern "C" __attribute__((visibility("default"))) int not_the_entry() { return table.abi; }
#else
extern "C" __attribute__((visibility("default"))) const flashplus_compiler_table *flashplus_compiler() {
  return &table;
}
#endif
