// SPDX-License-Identifier: BSD-3-Clause
// The flags that describe one attention problem: what `run` and `emulate` share.
#pragma once

#include "tools/flashplus/command.h"
#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

struct AppendFlags {
  int64_t rows = -1;  ///< New keys of every sequence; -1: no append.
  int64_t rotary = 0; ///< Columns that turn; 0: none.
  bool interleaved = false;

  bool given() const { return rows >= 0; }
};

struct ProblemFlags {
  CommonFlags common;
  AppendFlags append;
  InputFlags input;
  std::string window, alibi, sinks, score, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, dout;
  std::string lse_empty = "inf";
  std::vector<std::string> tensors, scalars;
  std::optional<double> scale;
  double softcap = 0, dropout = 0;
  int64_t max_seqlen_q = -1, max_seqlen_k = -1, page_size = 0;
  std::string pages = "order";
  int num_splits = 0;
  bool causal = false, check = false, batch_invariant = false, backward = false, any_order = false;
};

/// Adds them, --check and the common flags included.
void addProblemFlags(CLI::App &verb, ProblemFlags &flags);
/// Loads or makes the tensors. Failures name the flag.
Result<Problem> makeProblem(const ProblemFlags &flags);

} // namespace flashplus::tool
