// SPDX-License-Identifier: BSD-3-Clause
// libflashplus-compiler.so, opened on the first miss and never before: a process with a warm cache does not
// map LLVM.
#pragma once

#include "cache/fork.h"
#include "compiler/entry.h"
#include "spec/artifact.h"
#include "spec/target.h"

#include <atomic>
#include <mutex>
#include <string>

namespace flashplus {

/// What a compilation gave, and milliseconds by stage.
struct Compiled {
  Artifact artifact;
  flashplus_compile_times times{};
};

/// Thread-safe. The library stays open for the life of the process. A fork waits for what runs in it; a child
/// of one that did not (ForkWaits) has no compiler, NotResident.
class CompilerLibrary {
public:
  /// `path`: where the library is; empty = libflashplus-compiler.so beside this library. `nvjitlink`
  /// and `ptxas`: paths of the assemblers to use, "off", or empty: searched,
  /// and `search` is $PATH.
  CompilerLibrary(std::string path, std::string nvjitlink, std::string ptxas, std::string search = "");

  Result<Compiled> compile(const std::string &spec, const std::string &schedule, const std::string &target);
  /// As above, but the code is left as PTX.
  Result<Compiled> compilePtx(const std::string &spec, const std::string &schedule,
                              const std::string &target);
  Result<std::string> print(const std::string &spec, const std::string &schedule, const std::string &target,
                            const std::string &stage);

  /// Opens the library if need be; fails when it is missing or of another build.
  Result<const flashplus_compiler_table *> table();
  bool isOpen() const { return table_.load(std::memory_order_acquire) != nullptr; }
  const std::string &path() const { return path_; }
  /// Whether it is worth a compilation to ask for a cubin for a GPU target: an assembler is named, or a file
  /// that looks like one is there. Opens nothing.
  bool mayAssemble(const Target &target) const;
  flashplus_assemblers assemblers() const;

private:
  const std::string path_, nvjitlink_, ptxas_, search_;
  ForkSafe<std::mutex> mutex_;
  std::atomic<const flashplus_compiler_table *> table_{nullptr};
};

} // namespace flashplus
