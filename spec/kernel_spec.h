// SPDX-License-Identifier: BSD-3-Clause
// KernelSpec: *what* a kernel computes, and nothing else. Everything here changes the generated code; sizes,
// strides, softmax_scale, window widths, the values of score parameters and the LSE of empty rows are
// run-time parameters (spec/params.h) and so never cause a compilation.
#pragma once

#include "spec/dtype.h"
#include "spec/score.h"
#include "spec/status.h"

#include <string>
#include <string_view>

namespace flashplus {

enum class Operation {
  Forward, ///< o, lse = attention(q, k, v)
  Combine, ///< o, lse from the partial results of a forward that was split over the keys
};

inline constexpr int kMaxHeadDim = 256;

struct KernelSpec {
  Operation op = Operation::Forward;
  DType dtype = DType::BF16;
  int head_dim_qk = 0; ///< Elements of a q or k row, 1 to kMaxHeadDim, as stored; 0 for Combine.
  int head_dim_v = 0;  ///< Elements of a v or o row, 1 to kMaxHeadDim.

  /// The mask is an interval of visible keys per query row: with p = q + sk - sq,
  ///   [ bounded_left ? p - window_left : 0,  bounded_right ? p + window_right + 1 : sk )  cut to [0, sk).
  /// Causal is bounded_right with window_right = 0.
  bool bounded_left = false;
  bool bounded_right = false;

  bool split = false; ///< Writes fp32 partial results of one share of the keys instead of o and lse.
  int alignment = 16; ///< Bytes to which every row of q, k, v and o is known to be aligned: 16 or dtypeBytes.
  ScoreExpr score;

  /// One line, versioned by the key that it goes into; equal specs have equal text, e.g.
  ///   forward dtype=bf16 dqk=128 dv=128 left=0 right=1 split=0 align=16 score={s}
  ///   combine dtype=bf16 dv=128 align=16
  std::string text() const;
  /// Parses what text() prints (fields in that order) and validates it.
  static Result<KernelSpec> parse(std::string_view text);
  /// InvalidArgument that names the first field out of its range.
  Status validate() const;
};

} // namespace flashplus
