// SPDX-License-Identifier: BSD-3-Clause
// PTX -> cubin through the ptxas program, which needs neither a GPU nor a driver. It is the only assembler
// outside the driver that compiles whole programs, and so the only one that honours setmaxnreg
// (docs/rationale/assemblers.md).
#pragma once

#include "compiler/codegen/cubin.h"

namespace flashplus {

class Ptxas {
public:
  /// The program: `path` if it is neither null nor empty, else the first of $PATH and CUDA's usual folder
  /// that works. Remembered by path once it was found. Unsupported, saying what was tried, if there is none
  /// or `path` is "off"; InvalidArgument if one was named and does not work: another never takes its place;
  /// IoError if nothing can be started now.
  static Result<const Ptxas *> find(const char *path);

  /// Assembles for `chip` ("sm_90a"). CompileFailed with the assembler's messages if it refuses the code;
  /// IoError if it could not be run or was killed, or failed without a word, twice: that says nothing about
  /// the code; TimedOut if it was still running after `seconds` (0: no limit) and was ended. Thread-safe.
  Result<Cubin> assemble(std::string_view ptx, const std::string &chip, int64_t seconds = 0) const;

  const std::string &version() const { return version_; } ///< "13.0"

private:
  std::string path_, version_;
};

} // namespace flashplus
