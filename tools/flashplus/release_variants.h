// SPDX-License-Identifier: BSD-3-Clause
// The variants that a release ships: what `flashplus warmup --list` names, `warmup` without sizes fills the
// cache with, and CI assembles.
#pragma once

#include "spec/kernel_spec.h"

#include <span>
#include <string_view>
#include <vector>

namespace flashplus::tool {

/// How a variant changes the score. The expressions themselves come from the library (flashplus_spec_of).
enum class ScoreMode { Plain, Softcap, AlibiPerHead, AlibiPerBatchAndHead };

/// The expression of a mode, for those who compile without the library's calls.
const char *scoreText(ScoreMode mode);

struct VariantRow {
  int head_dim_qk, head_dim_v;
  ScoreMode score;
  bool plain, causal,
      window;           ///< Masks: none; causal; a window bounded on both sides (causal with a window too).
  std::string_view who; ///< For people: which models.
};

std::span<const VariantRow> releaseVariants();

/// Specs of one row for one dtype; rows 16-byte aligned. `score` is the expression of row.score.
std::vector<KernelSpec> specsOfRow(const VariantRow &row, DType dtype, const ScoreExpr &score);

} // namespace flashplus::tool
