// SPDX-License-Identifier: BSD-3-Clause
// PTX -> cubin through the ptxas program, which needs neither a GPU nor a driver. It is the only assembler outside the
// driver that compiles whole programs, and so the only one that honours setmaxnreg (docs/rationale/assemblers.md).
#pragma once

#include "compiler/codegen/cubin.h"

namespace flashplus {

class Ptxas {
public:
  /// Finds the program once per process: `path` first when not null, then $PATH and CUDA's usual folder. Null when there is
  /// none; `why` then says what was tried.
  static const Ptxas *find(const char *path, std::string *why = nullptr);

  /// Assembles for `chip` ("sm_90a"). Fails with the assembler's messages. Thread-safe.
  Result<Cubin> assemble(std::string_view ptx, const std::string &chip) const;

  const std::string &version() const { return version_; } ///< "13.0"

private:
  std::string path_, version_;
};

} // namespace flashplus
