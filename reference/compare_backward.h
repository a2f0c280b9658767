// SPDX-License-Identifier: BSD-3-Clause
// The rule of compare.h for gradients: errors against fp64 are at most 1.25 times those of a model that
// rounds only where a kernel must, plus a floor of a few fp32 roundings; the largest, and the root of the
// mean square, in which errors that are small but everywhere show.
#pragma once

#include "reference/backward.h"

#include <cmath>
#include <string>

namespace flashplus::reference {

struct BackwardComparison {
  /// Of one gradient: "dq", "dk", "dv", "d<tensor>", "d<scalar>", "dsoftcap", "dslopes".
  struct Part {
    std::string name;
    /// Largest error of a row divided by the largest scale (BackwardOutput::scales) in that row; of a scalar
    /// or an element of a tensor, by its own. A row whose scale is 0 (no key, or dO = 0) has no rounding: any
    /// error there is infinite, and so is a NaN.
    double error = 0, bound = 0;
    double rms = 0, rms_bound = 0;         ///< The same, as the root of the mean square of all elements.
    double absolute_error = 0;             ///< For people.
    int64_t rows = 0;                      ///< (row, head) pairs or elements compared: all valid ones.
    int64_t worst_row = 0, worst_head = 0; ///< Where `error` is largest; of tensors, the element and 0.

    bool good() const {
      return error <= bound && rms <= rms_bound && std::isfinite(error) && std::isfinite(rms);
    }
  };
  std::vector<Part> parts;

  bool good() const;
  /// One line with every part that is not good; empty if all are.
  std::string complaint() const;
};

/// Runs the reference and the model on `problem` and judges what a kernel wrote. `rounds_p`: see
/// BackwardModel.
BackwardComparison compareBackward(const BackwardProblem &problem, const Gradients &actual,
                                   bool rounds_p = false, int threads = 0);

} // namespace flashplus::reference
