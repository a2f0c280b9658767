// SPDX-License-Identifier: BSD-3-Clause
// KernelSpec: *what* a kernel computes, and nothing else. Everything here changes the generated code; sizes,
// strides, softmax_scale, window widths, the values of score parameters and the LSE of empty rows are
// run-time parameters (spec/params.h) and so never cause a compilation.
#pragma once

#include "spec/fields.h"
#include "spec/score.h"
#include "spec/status.h"

#include <string>
#include <string_view>

namespace flashplus {

struct KernelSpec : SpecFields {
  ScoreExpr score;

  /// One line. The operation, the fields that it has in the order of their table (spec/fields.h), then the
  /// score; what is at its default is left out unless the field is required. Equal specs have equal text,
  ///   e.g. forward dtype=bf16 dqk=128 dv=128 right=1
  ///   forward dtype=fp16 dqk=64 dv=64 align=2 score={p0 * tanh(s / p0)}
  ///   combine dtype=bf16 dv=128
  std::string text() const;

  /// Parses such a line and validates the spec. Fields may stand in any order, once each, and may be at their
  /// default; the score is last. What library 0.1 wrote is understood as well: "split=0" and "split=1" are
  /// results=final and =partial.
  static Result<KernelSpec> parse(std::string_view text);

  /// InvalidArgument that names the first field out of its range.
  Status validate() const;
};

} // namespace flashplus
