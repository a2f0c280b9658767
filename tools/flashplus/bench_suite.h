// SPDX-License-Identifier: BSD-3-Clause
// Named sets of problems: features, and decode steps, each beside the problem that it is held against.
#pragma once

#include "tools/flashplus/bench_case.h"

#include <optional>

namespace flashplus::tool {

struct SuiteRow {
  std::string name;
  BenchCase problem;
  /// Speeds are compared as FLOP/s, each by its own visible FLOPs; of decode steps, times. Where a feature
  /// hides pairs, the dense problem has as many visible ones; else it is the same problem without the
  /// feature.
  std::optional<BenchCase> dense; ///< None: the problem stands for itself.
  std::optional<double> reach; ///< The share of the dense speed that is asked for.
};

/// `tokens` query rows in each, `hidden` = heads times 128; sequences of a quarter of the tokens.
std::vector<SuiteRow> featureSuite(int64_t tokens, int64_t hidden);

/// Decode steps: batches and lengths for some head shapes, of a GPU those of docs/performance.md at `tokens`
/// = 8192 keys, of a CPU fewer and smaller ones; then pages, new keys, several rows, a window, each beside
/// the same problem without, and ragged lengths.
std::vector<SuiteRow> decodeSuite(int64_t tokens, bool gpu);

} // namespace flashplus::tool
