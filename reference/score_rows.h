// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "reference/attention.h"

#include <span>

namespace flashplus::reference {

/// One query row, as scores see it.
struct ScoreRow {
  int64_t b = 0, h = 0, hk = 0, q = 0, sq = 0, sk = 0;
};

/// Evaluates nodes of a score for the keys [first_key, first_key + s.size()) of one query row, each node in
/// all of them. T is the precision in which everything is computed.
template <class T> class NodeRows {
public:
  NodeRows(std::vector<ScoreNode> nodes, std::vector<float> scalars, std::vector<AuxTensor> tensors);

  void evaluate(const ScoreRow &row, int64_t first_key, std::span<const T> s);
  /// Of the last row, one value a key.
  const std::vector<T> &values(int node) const { return values_[size_t(node)]; }
  /// The index of the element that a Tensor node read for the i-th key of the last row, counted in order of
  /// the tensor's shape.
  int64_t element(int node, size_t i) const;

private:
  /// The i-th key's d-th index of a Tensor node, clamped.
  int64_t index(const ScoreNode &node, size_t d, size_t i) const;
  /// A node that is an integer index, exactly.
  int64_t integer(int node, int64_t key) const;

  const std::vector<ScoreNode> nodes_;
  const std::vector<float> scalars_;
  const std::vector<AuxTensor> tensors_;
  std::vector<bool> integer_; ///< Of each node: isIntegerIndex.
  std::vector<std::vector<T>> values_; ///< One array per node, kept between rows.
  ScoreRow row_;
  int64_t first_key_ = 0;
};

/// Turns the scaled scores of keys [first_key, first_key + s.size()) of one query row into final ones, in
/// place. T is the precision in which everything is computed.
template <class T> class ScoreRows {
public:
  explicit ScoreRows(const Problem &problem);

  void apply(const ScoreRow &row, int64_t first_key, std::span<T> s);

private:
  const Problem &problem_;
  NodeRows<T> nodes_;
};

extern template class NodeRows<float>;
extern template class NodeRows<double>;
extern template class ScoreRows<float>;
extern template class ScoreRows<double>;

} // namespace flashplus::reference
