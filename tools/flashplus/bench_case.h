// SPDX-License-Identifier: BSD-3-Clause
// One problem to be timed, as sizes and switches, and the flags that name a grid of them.
#pragma once

#include "spec/dtype.h"
#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// Input is random, so sizes and switches are all there is.
struct BenchCase {
  DType dtype = DType::BF16;
  int64_t batch = 1, seqlen_q = 0, seqlen_k = 0, heads_q = 1, heads_k = 1, head_dim = 128, head_dim_v = 128;
  bool causal = false;
  int64_t window_left = -1, window_right = -1; ///< As flashplus_forward_args.
  double softcap = 0;
  bool alibi = false, sinks = false;
  double dropout = 0;
  bool backward = false;        ///< The gradients of q, k and v are timed, not the forward.
  bool any_order = false;       ///< Of them, dq may be summed in any order.
  std::vector<int64_t> lengths; ///< Not empty: packed sequences of these lengths, queries and keys alike;
                                ///< `batch` of them, seqlen_q = seqlen_k = the longest.
  int64_t page_size = 0;        ///< Not 0: keys lie in pages of so many slots, in random order.
  int64_t append = 0;           ///< The last so many keys of each sequence are new and turned, as is q.
  std::vector<int64_t> keys;    ///< Not empty: how many of its seqlen_k keys each sequence has.
  int64_t max_seqlen = 0;       ///< Of packed sequences, the bound that the caller states; 0 = the longest.

  int64_t rowsQ() const;
  int64_t rowsK() const; ///< Of pages, all their slots.
  int64_t keysOf(int64_t sequence) const { return keys.empty() ? seqlen_k : keys[size_t(sequence)]; }
  /// Few rows against many keys: bound by reading them, so that every call is to find them in memory.
  bool readsMemory() const;
  /// Bytes of the keys and values that some row sees.
  double keyBytes() const;
  /// (query, key) pairs that the mask lets through, over the batch; counted exactly.
  double visiblePairs() const;
  /// 2 (head_dim + head_dim_v) for each visible pair and query head: the two products. Of a backward
  /// kBackwardFlops (gradients.h) times as many.
  double flops() const;

  /// "D128 causal S4096 B4 H16 bf16"
  std::string label() const;
  /// What label() says, and the rest, as fields of a result file. Two cases are the same problem iff these
  /// are equal.
  Json json() const;
};

/// The flags of `bench` and `tune` that say which problems.
struct CaseFlags {
  CommonFlags common;
  std::vector<std::string> shapes; ///< B,SQ,SK,HQ,HK,D[,DV]
  std::vector<std::string> head_dims, dtypes = {"bf16"};
  std::vector<int64_t> seqlens, seqlens_k;
  std::vector<int> causal;
  int64_t tokens = 0, hidden = 0, batch = 0, heads = 0, heads_k = 0, page_size = 0;
  std::string window, device = "auto";
  double softcap = 0, dropout = 0;
  bool alibi = false, sinks = false;
  bool backward = false, any_order = false; ///< The first is a flag of the verbs themselves.
};
void addCaseFlags(CLI::App &verb, CaseFlags &flags);

/// Sizes for flags that are not given: a GPU wants more work than a CPU.
struct CaseDefaults {
  std::vector<std::string> head_dims;
  std::vector<int64_t> seqlens;
  std::vector<int> causal;
  int64_t tokens, hidden;
};
CaseDefaults caseDefaults(bool gpu);

/// Every combination, head dims outermost and lengths innermost. Failures name the flag.
Result<std::vector<BenchCase>> makeCases(const CaseFlags &flags, const CaseDefaults &defaults);

} // namespace flashplus::tool
