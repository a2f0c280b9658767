// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "reference/attention.h"

#include <span>

namespace flashplus::reference {

/// Turns the scaled scores of keys [first_key, first_key + s.size()) of one query row into final ones, in place.
/// T is the precision in which everything is computed.
template <class T> class ScoreRows {
public:
  explicit ScoreRows(const Problem &problem);

  struct Row {
    int64_t b = 0, h = 0, hk = 0, q = 0, sq = 0, sk = 0;
  };
  void apply(const Row &row, int64_t first_key, std::span<T> s);

private:
  void evaluate(const Row &row, int64_t first_key, std::span<T> s);
  /// A node that is an integer index, exactly.
  int64_t integer(int node, const Row &row, int64_t key) const;

  const Problem &problem_;
  std::vector<bool> integer_; ///< Of each node: ScoreExpr::isIntegerIndex.
  std::vector<std::vector<T>> values_; ///< One array per node, kept between rows.
};

extern template class ScoreRows<float>;
extern template class ScoreRows<double>;

} // namespace flashplus::reference
