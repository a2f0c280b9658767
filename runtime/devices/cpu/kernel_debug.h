// SPDX-License-Identifier: BSD-3-Clause
// Who is told of the CPU kernels of a context, so that a debugger or a profiler shows their names:
// $FLASHPLUS_DEBUG_KERNELS.
#pragma once

#include "runtime/devices/cpu/elf_loader.h"
#include "runtime/devices/cpu/gdb_symbols.h"
#include "runtime/devices/cpu/perf_dump.h"

#include <functional>

namespace flashplus {

class KernelDebug {
public:
  /// Tells nobody.
  KernelDebug() = default;

  /// `setting` is a comma-separated list of `gdb`, `perf` and `perf=FOLDER`; `perf` alone writes into
  /// `perf_folder`. InvalidArgument for another word or a folder that cannot be written. `log` hears of what
  /// fails later.
  static Result<KernelDebug> open(const std::string &setting, const std::string &perf_folder,
                                  std::function<void(const std::string &)> log);

  /// Tells of code that was just loaded from `object`. What it returns (null unless gdb is told) must go
  /// before the code. Thread-safe.
  std::unique_ptr<GdbSymbols> loaded(const LoadedObject &code, std::span<const uint8_t> object) const;

private:
  bool gdb_ = false;
  std::shared_ptr<PerfDump> perf_;
  std::function<void(const std::string &)> log_;
};

} // namespace flashplus
