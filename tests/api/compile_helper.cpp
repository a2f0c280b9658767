// SPDX-License-Identifier: BSD-3-Clause
// The real compiler in a process of its own, through the public headers.
#include "tests/soak.h"

#include <flashplus/flashplus.hpp>

#include <doctest/doctest.h>

#include <fstream>
#include <pthread.h>
#include <string>
#include <vector>

using namespace flashplus;

namespace {

Context contextWith(ContextOptions options) {
  options.cache_dir = "";
  options.num_threads = 1;
  return Context::create(options).value();
}

/// The code of a kernel; each head dim is one of its own.
Expected<Kernel> kernel(const Context &context, int head_dim) {
  return context.kernel(
      "forward dtype=bf16 dqk=" + std::to_string(head_dim) + " dv=" + std::to_string(head_dim), "x86-64-v3");
}

bool mapsLlvm() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("libflashplus-compiler") != std::string::npos || line.find("LLVM") != std::string::npos)
      return true;
  return false;
}

} // namespace

TEST_CASE("compiling leaves LLVM out of this process") {
  if (mapsLlvm())
    return; // another test case compiled in this process
  const Context context = contextWith({});
  CHECK(bool(kernel(context, 40)));
  CHECK(!mapsLlvm());
}

TEST_CASE("a thread with little stack compiles kernels, in this process, too") {
  for (const bool in_process : {false, true}) {
    CAPTURE(in_process);
    ContextOptions options;
    options.compile_in_process = in_process;
    const Context context = contextWith(options);
    struct Work {
      const Context &context;
      bool good = false;
    } work{context};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    REQUIRE(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
    pthread_t thread;
    REQUIRE(pthread_create(
                &thread, &attributes,
                [](void *self) -> void * {
                  auto *w = static_cast<Work *>(self);
                  w->good = bool(kernel(w->context, 48));
                  return nullptr;
                },
                &work) == 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    CHECK(work.good);
  }
}

TEST_CASE(
    "memory that runs out at any moment of a compilation is a status, and the next kernel is compiled") {
  int good = 0, short_of_memory = 0;
  const int runs = test::soakCount(500);
  for (int i = 0; i < runs; ++i) {
    ContextOptions options;
    options.compile_bytes = (int64_t(2) << 20) + int64_t(160 << 20) * i / runs;
    auto compiled = kernel(contextWith(options), 56);
    good += bool(compiled);
    if (compiled)
      continue;
    CHECK_MESSAGE(compiled.error().code == FLASHPLUS_OUT_OF_MEMORY, compiled.error().message);
    short_of_memory += compiled.error().code == FLASHPLUS_OUT_OF_MEMORY;
  }
  CHECK(good > 0);
  CHECK(short_of_memory > 0);
  CHECK(good + short_of_memory == runs);
}
