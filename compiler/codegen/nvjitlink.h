// SPDX-License-Identifier: BSD-3-Clause
// PTX -> cubin through libnvJitLink, opened at run time; needs neither a GPU nor a driver.
#pragma once

#include "compiler/codegen/cubin.h"

#include <string>
#include <string_view>

namespace flashplus {

class NvJitLink {
public:
  /// Opens the library once per process: `path` first when not null, then the loader's search path and CUDA's usual
  /// folders. Null when there is none; `why` then says what was tried.
  static const NvJitLink *open(const char *path, std::string *why = nullptr);

  /// Assembles for `chip` ("sm_90a"). Fails with the assembler's log. Thread-safe.
  Result<Cubin> assemble(std::string_view ptx, const std::string &chip) const;

  std::string version() const; ///< "13.0"

private:
  NvJitLink() = default;
  struct Functions;
  const Functions *functions_ = nullptr;
};

} // namespace flashplus
