// SPDX-License-Identifier: BSD-3-Clause
#include "tests/conformance/pairs.h"

#include <algorithm>
#include <map>

namespace flashplus::conformance {

std::vector<size_t> PairLedger::choose(const std::vector<Row> &rows) {
  // Pairs that are still open, each with the rows that have it.
  std::map<Pair, std::vector<size_t>> open;
  for (size_t r = 0; r < rows.size(); ++r)
    for (size_t i = 0; i < rows[r].size(); ++i)
      for (size_t j = 0; j <= i; ++j) { // j == i: the value by itself, for lists of one dimension
        Pair pair{{j, rows[r][j]}, {i, rows[r][i]}};
        if (!covered_.contains(pair))
          open[std::move(pair)].push_back(r);
      }
  std::vector<std::vector<std::vector<size_t> *>> pairs_of(rows.size());
  std::vector<size_t> gain(rows.size()); // open pairs of a row
  for (auto &[pair, holders] : open) {
    covered_.insert(pair);
    for (size_t r : holders) {
      pairs_of[r].push_back(&holders);
      ++gain[r];
    }
  }
  // The row with the most open pairs, again and again; the first of several.
  std::vector<size_t> chosen;
  for (;;) {
    const auto best = std::max_element(gain.begin(), gain.end());
    if (best == gain.end() || *best == 0)
      break;
    const size_t row = size_t(best - gain.begin());
    chosen.push_back(row);
    for (std::vector<size_t> *holders : pairs_of[row]) {
      for (size_t r : *holders)
        --gain[r];
      holders->clear(); // no longer open
    }
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

} // namespace flashplus::conformance
