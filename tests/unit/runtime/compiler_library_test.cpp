// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/kernels/compiler_library.h"
#include "tests/tools/temporary.h"
#include "tests/unit/runtime/libraries.h"
#include "templates/forward/planner.h"

#include <doctest/doctest.h>
#include <thread>

using namespace flashplus;

namespace {

void unusable(const std::string &path, const std::string &why) {
  for (bool in_process : {false, true}) {
    CAPTURE(in_process);
    CompilerLibrary library(path, "", "", "", {.in_process = in_process});
    CHECK(!library.isMissing());
    for (int i = 0; i < 2; ++i) { // a second try says the same
      auto compiled = library.compile("a", "b", "c");
      REQUIRE(!compiled);
      CHECK(compiled.status().code() == StatusCode::CompileFailed);
      CHECK_MESSAGE(compiled.status().message().find(why) != std::string::npos, compiled.status().message());
      CHECK(library.isMissing());
    }
    CHECK(!library.isOpen());
    CHECK(library.print("a", "b", "c", "llvm").status().message().find(why) != std::string::npos);
    CHECK(library.describe().status().message().find(why) != std::string::npos);
  }
}

} // namespace

TEST_CASE(
    "a compiler library that is missing, of another build or another interface is refused with the reason") {
  unusable("/nowhere/libflashplus-compiler.so", "/nowhere/libflashplus-compiler.so");
  test::TemporaryFolder folder;
  test::writeText(folder.path("text.so"), "not a library");
  unusable(folder.path("text.so"), "the compiler library cannot be opened");
  unusable(test::kOtherBuild, "it is build another build and this runtime needs build ");
  unusable(test::kOtherAbi, "its interface is version " + std::to_string(FLASHPLUS_COMPILER_ABI + 1) +
                                ", not " + std::to_string(FLASHPLUS_COMPILER_ABI));
  unusable(test::kNoEntry, "it has no entry flashplus_compiler");
}

TEST_CASE("the library is opened on the first compile, once, from many threads") {
  for (bool in_process : {false, true}) {
    CAPTURE(in_process);
    CompilerLibrary library(test::kFakeCompiler, "", "", "", {.in_process = in_process});
    CHECK(!library.isOpen());
    KernelSpec spec;
    spec.head_dim_qk = spec.head_dim_v = 32;
    const Target target{Isa::X86_64_v3, 0};
    const std::string schedule = feasibleSchedules(spec, offlineProfile(target)).front().text();
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([&] { good += library.compile(spec.text(), schedule, target.text()).isOk(); });
    for (std::thread &t : threads)
      t.join();
    CHECK(good == 8);
    CHECK(library.isOpen() == in_process);
    CHECK(library.worksHere() == in_process);
    CHECK(*library.print("a", "b", "c", "llvm") == "stage llvm");
    auto description = library.describe();
    REQUIRE(description.isOk());
    CHECK(description->compiler == "fake");
    CHECK(!description->has_ptxas);
    CHECK(description->ptxas == "none here");
  }
}

TEST_CASE("what the compiler refuses comes back with its code and sentence") {
  CompilerLibrary library(test::kFakeCompiler, "", "");
  auto failed = library.compile("forward nonsense", "x", "y");
  REQUIRE(!failed);
  CHECK(failed.status().code() == StatusCode::InvalidArgument);
  CHECK(failed.status().message().find("nonsense") != std::string::npos);
}

TEST_CASE("without a path it is the one beside us") {
  const std::string path = CompilerLibrary("", "", "").path();
  CHECK(path.ends_with("/libflashplus-compiler.so"));
}
