// SPDX-License-Identifier: BSD-3-Clause
// Named sets of problems: features, each beside the dense problem that it is held against.
#pragma once

#include "tools/flashplus/bench_case.h"

#include <optional>

namespace flashplus::tool {

struct SuiteRow {
  std::string name;
  BenchCase problem;
  /// Speeds are compared as FLOP/s, each by its own visible FLOPs. Where a feature hides pairs, the dense
  /// problem has as many visible ones; else it is the same problem without the feature.
  BenchCase dense;
  std::optional<double> reach; ///< The share of the dense speed that is asked for.
};

/// `tokens` query rows in each, `hidden` = heads times 128; sequences of a quarter of the tokens.
std::vector<SuiteRow> featureSuite(int64_t tokens, int64_t hidden);

} // namespace flashplus::tool
