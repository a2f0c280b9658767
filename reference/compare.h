// SPDX-License-Identifier: BSD-3-Clause
// The one rule by which a kernel's results are good: its error against fp64 is at most 1.25 times the error
// of a model that rounds only where a kernel must, plus a floor of a few fp32 roundings.
#pragma once

#include "reference/attention.h"

#include <cmath>

namespace flashplus::reference {

struct Comparison {
  /// Largest error of a row of o, divided by the largest |o| of that row in fp64 (rows of many keys have
  /// small values, in which a wrong key must not hide behind the rounding of a row of few). Infinity for a
  /// NaN.
  double error = 0;
  double bound = 0;
  double lse_error = 0; ///< Absolute. 0 where both are the same infinity.
  double lse_bound = 0;
  double absolute_error = 0; ///< Largest |o - fp64|, for people.
  int64_t rows = 0;          ///< (row, head) pairs compared: all valid ones.
  // Where `error` is largest.
  int64_t worst_row = 0, worst_head = 0;

  /// An error that is not finite is never good, whatever the model's is (inputs with NaN).
  bool good() const {
    return error <= bound && lse_error <= lse_bound && std::isfinite(error) && std::isfinite(lse_error);
  }
};

/// What a kernel wrote, in the layout of Output; `lse` may be empty when there is none.
struct Actual {
  std::vector<double> o;
  std::vector<double> lse;
};

/// Runs the reference and the model on `problem` and judges `actual`.
Comparison compare(const Problem &problem, const Actual &actual, int threads = 0);

} // namespace flashplus::reference
