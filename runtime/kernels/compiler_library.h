// SPDX-License-Identifier: BSD-3-Clause
// libflashplus-compiler.so, opened on the first miss and never before, by a process of its own
// (helper_process.h) or, where that can't be or is not wanted, by this one. A process with a warm cache
// starts none and does not map LLVM.
#pragma once

#include "cache/fork.h"
#include "compiler/entry.h"
#include "runtime/kernels/helper_pool.h"
#include "spec/artifact.h"
#include "spec/target.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace flashplus {

/// What a compilation gave, and milliseconds by stage.
struct Compiled {
  Artifact artifact;
  flashplus_compile_times times{};
};

/// Where the compiler works, and within what.
struct CompilerOptions {
  bool in_process = false; ///< In this process; then `limits` holds for the program ptxas only, and not in
                           ///< memory.
  HelperLimits limits;
  std::string helper; ///< Path of the program; empty: beside the compiler library, else beside this one.
  std::function<void(const std::string &)> log; ///< Told once if it works in this process all the same.
};

/// What there is to compile with.
struct CompilerDescription {
  std::string compiler; ///< "LLVM 22.1.8"
  bool has_nvjitlink = false, has_ptxas = false;
  std::string nvjitlink, ptxas; ///< The version, or why it is not there.
};

/// Thread-safe. In this process the library stays open for its life, and a fork waits for what runs in it; a
/// child of one that did not (ForkWaits) has no compiler, NotResident. With helpers no fork waits.
class CompilerLibrary {
public:
  /// `path`: where the library is; empty = libflashplus-compiler.so beside this library. `nvjitlink`
  /// and `ptxas`: paths of the assemblers to use, "off", or empty: searched,
  /// and `search` is $PATH.
  CompilerLibrary(std::string path, std::string nvjitlink, std::string ptxas, std::string search = "",
                  CompilerOptions options = {});

  /// Told while a compilation in a helper takes its time, every few seconds with the milliseconds so far.
  using Waiting = std::function<void(double ms)>;

  /// Failures besides the compiler's own: TimedOut, OutOfMemory (both limits), CompilerCrashed, IoError (the
  /// helper was killed, twice, or cannot be started now), with its last lines. CompileFailed when the library
  /// cannot be used (isMissing()).
  Result<Compiled> compile(const std::string &spec, const std::string &schedule, const std::string &target,
                           const Waiting &waiting = {});
  /// As above, but the code is left as PTX.
  Result<Compiled> compilePtx(const std::string &spec, const std::string &schedule, const std::string &target,
                              const Waiting &waiting = {});
  Result<std::string> print(const std::string &spec, const std::string &schedule, const std::string &target,
                            const std::string &stage, const Waiting &waiting = {});
  Result<CompilerDescription> describe();

  /// What makes code for `target` besides this build: the versions of the assemblers, "" for a CPU. Nothing
  /// if the library cannot be opened.
  std::optional<std::string> toolchain(const Target &target);

  /// Whether the last attempt to open the library found it missing, or of another build.
  bool isMissing() const { return missing_; }
  /// Whether this process has it open.
  bool isOpen() const { return table_.load(std::memory_order_acquire) != nullptr; }
  const std::string &path() const { return path_; }
  /// Whether it is worth a compilation to ask for a cubin for a GPU target: an assembler is named, or a file
  /// that looks like one is there. Opens nothing.
  bool mayAssemble(const Target &target) const;

  /// Lets the processes go that wait for the next kernel.
  void rest() { pool_.endIdle(); }
  /// The numbers of the processes that there are.
  std::vector<pid_t> processes() { return pool_.processes(); }
  /// Whether kernels are compiled in this process.
  bool worksHere() const { return here_; }

private:
  /// The library in this process.
  Result<const flashplus_compiler_table *> table();
  struct Answer {
    std::string bytes;
    flashplus_compile_times times{};
  };
  Result<Answer> ask(helper::Kind kind, const std::string &spec, const std::string &schedule,
                     const std::string &target, const std::string &stage, const Waiting &waiting);
  Result<Answer> askHere(helper::Kind kind, const std::string &spec, const std::string &schedule,
                         const std::string &target, const std::string &stage);
  flashplus_assemblers assemblers() const;

  const std::string path_, nvjitlink_, ptxas_, search_;
  const std::function<void(const std::string &)> log_;
  HelperPool pool_;
  std::atomic<bool> here_;
  std::atomic<bool> missing_{false};
  ForkSafe<std::mutex> mutex_;
  std::atomic<const flashplus_compiler_table *> table_{nullptr};
};

} // namespace flashplus
