// SPDX-License-Identifier: BSD-3-Clause
// PTX -> cubin through libnvJitLink, opened at run time; needs neither a GPU nor a driver.
#pragma once

#include "compiler/codegen/cubin.h"

#include <memory>
#include <string>
#include <string_view>

namespace flashplus {

class NvJitLink {
public:
  /// The library: `path` if it is neither null nor empty, else the first of the loader's search path and
  /// CUDA's usual folders that can be used. Opened once per process and path. Unsupported, saying what was
  /// tried, if there is none or `path` is "off"; InvalidArgument if one was named and does not work: another
  /// never takes its place.
  static Result<const NvJitLink *> open(const char *path);

  /// Assembles for `chip` ("sm_90a"). Fails with the assembler's log. Thread-safe.
  Result<Cubin> assemble(std::string_view ptx, const std::string &chip) const;

  std::string version() const; ///< "13.0"

private:
  NvJitLink() = default;
  struct Functions;
  std::shared_ptr<const Functions> functions_;
};

} // namespace flashplus
