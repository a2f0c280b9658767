// SPDX-License-Identifier: BSD-3-Clause
// How fast a machine can be at most: its arithmetic and its memory, and which of the two binds a problem.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

struct Roofs {
  double flops = 0, bytes = 0;            ///< A second; 0: not known.
  std::string flops_source, bytes_source; ///< Where the number is from, or why there is none.

  /// These, and `other`'s where these are not known.
  Roofs orElse(const Roofs &other) const;
  /// The least seconds that `cell` of a result file can take; 0 where no roof is known. `dtype`: of the file.
  double seconds(const Json &cell, const std::string &dtype) const;
  /// Of the roof that binds, what a run of so many seconds reaches; 0 where none is known.
  double share(const Json &cell, const std::string &dtype, double seconds) const;
};

/// Those of the machine that a result file is of: what the file says (`roof_flops_per_second`,
/// `roof_bytes_per_second`), else of a known GPU the figures of its data sheet.
Roofs roofsOf(const Json &result);

/// Bytes that a cell's kernels must at least move: each operand once.
double leastBytes(const Json &cell, const std::string &dtype);

} // namespace flashplus::tool
