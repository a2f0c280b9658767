// SPDX-License-Identifier: BSD-3-Clause
// Pairwise covering: a few rows of a list, chosen so that any two values that meet in the list meet in what
// is chosen. Most faults depend on one or two dimensions of a problem at a time; a full product of all runs
// them many times over. docs/rationale/conformance.md
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace flashplus::conformance {

/// Values of one case, one a dimension; all rows of one PairLedger have as many, in the same order.
using Row = std::vector<std::string>;

/// What has been chosen so far. The choice is a function of the lists given and of their order, of nothing
/// else.
class PairLedger {
public:
  /// Indices into `rows`, rising. Every pair of values in two dimensions that a row has is in a row chosen
  /// now or by an earlier call. A row alone in its list is chosen if it brings a pair that is new.
  std::vector<size_t> choose(const std::vector<Row> &rows);

private:
  using Pair = std::pair<std::pair<size_t, std::string>, std::pair<size_t, std::string>>;
  std::set<Pair> covered_;
};

} // namespace flashplus::conformance
