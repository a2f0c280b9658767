// SPDX-License-Identifier: BSD-3-Clause
#include "reference/score_rows.h"

#include <algorithm>
#include <cmath>

namespace flashplus::reference {

template <class T>
NodeRows<T>::NodeRows(std::vector<ScoreNode> nodes, std::vector<float> scalars,
                      std::vector<AuxTensor> tensors)
    : nodes_(std::move(nodes)), scalars_(std::move(scalars)), tensors_(std::move(tensors)),
      values_(nodes_.size()) {
  for (size_t node = 0; node < nodes_.size(); ++node)
    integer_.push_back(isIntegerIndex(nodes_, int(node)));
}

template <class T>
ScoreRows<T>::ScoreRows(const Problem &problem)
    : problem_(problem), nodes_(problem.score.nodes, problem.scalars, problem.tensors) {}

template <class T> void ScoreRows<T>::apply(const ScoreRow &row, int64_t first_key, std::span<T> s) {
  if (!problem_.score.isIdentity()) {
    nodes_.evaluate(row, first_key, s);
    const std::vector<T> &result = nodes_.values(int(problem_.score.nodes.size()) - 1);
    std::copy(result.begin(), result.end(), s.begin());
  }
  if (problem_.softcap > 0) {
    const T cap = T(problem_.softcap);
    for (T &x : s)
      x = cap * std::tanh(x / cap);
  }
  if (problem_.alibi_slopes) {
    const T slope =
        T(problem_.alibi_slopes[(problem_.alibi_per_batch ? row.b * problem_.heads_q : 0) + row.h]);
    for (size_t i = 0; i < s.size(); ++i)
      s[i] -= slope * T(std::abs(row.q + row.sk - row.sq - first_key - int64_t(i)));
  }
}

template <class T> void NodeRows<T>::evaluate(const ScoreRow &row, int64_t first_key, std::span<const T> s) {
  const size_t n = s.size();
  row_ = row;
  first_key_ = first_key;
  for (size_t number = 0; number < nodes_.size(); ++number) {
    const ScoreNode &node = nodes_[number];
    std::vector<T> &out = values_[number];
    out.resize(n);
    auto fill = [&](double value) { std::fill(out.begin(), out.end(), T(value)); };
    auto operand = [&](int i) -> const std::vector<T> & { return values_[node.operands[i]]; };
    auto unary = [&](auto f) {
      const auto &a = operand(0);
      for (size_t i = 0; i < n; ++i)
        out[i] = T(f(a[i]));
    };
    auto binary = [&](auto f) {
      const auto &a = operand(0), &b = operand(1);
      for (size_t i = 0; i < n; ++i)
        out[i] = T(f(a[i], b[i]));
    };
    switch (node.op) {
    case ScoreOp::Constant:
      fill(float(node.value));
      break;
    case ScoreOp::Score:
      std::copy(s.begin(), s.end(), out.begin());
      break;
    case ScoreOp::Batch:
      fill(double(row.b));
      break;
    case ScoreOp::Head:
      fill(double(row.h));
      break;
    case ScoreOp::HeadK:
      fill(double(row.hk));
      break;
    case ScoreOp::Query:
      fill(double(row.q));
      break;
    case ScoreOp::Key:
      for (size_t i = 0; i < n; ++i)
        out[i] = T(first_key + int64_t(i));
      break;
    case ScoreOp::SeqlenQ:
      fill(double(row.sq));
      break;
    case ScoreOp::SeqlenK:
      fill(double(row.sk));
      break;
    case ScoreOp::Scalar:
      fill(scalars_[size_t(node.slot)]);
      break;
    case ScoreOp::Tensor: {
      const AuxTensor &t = tensors_[size_t(node.slot)];
      for (size_t i = 0; i < n; ++i) {
        int64_t at = 0;
        for (size_t d = 0; d < node.operands.size(); ++d)
          at += index(node, d, i) * t.strides[d];
        out[i] = T(t.data[at]);
      }
      break;
    }
    case ScoreOp::Neg:
      unary([](T a) { return -a; });
      break;
    case ScoreOp::Abs:
      unary([](T a) { return std::fabs(a); });
      break;
    case ScoreOp::Exp:
      unary([](T a) { return std::exp(a); });
      break;
    case ScoreOp::Log:
      unary([](T a) { return std::log(a); });
      break;
    case ScoreOp::Sqrt:
      unary([](T a) { return std::sqrt(a); });
      break;
    case ScoreOp::Tanh:
      unary([](T a) { return std::tanh(a); });
      break;
    case ScoreOp::Floor:
      unary([](T a) { return std::floor(a); });
      break;
    case ScoreOp::Sech2:
      binary([](T x, T t) { return std::exp(-2 * std::fabs(x)) * (1 + std::fabs(t)) * (1 + std::fabs(t)); });
      break;
    case ScoreOp::Add:
      binary([](T a, T b) { return a + b; });
      break;
    case ScoreOp::Sub:
      binary([](T a, T b) { return a - b; });
      break;
    case ScoreOp::Mul:
      binary([](T a, T b) { return a * b; });
      break;
    case ScoreOp::Div:
      binary([](T a, T b) { return a / b; });
      break;
    case ScoreOp::Mod:
      binary([](T a, T b) { return scoreRemainder(double(a), double(b)); });
      break;
    case ScoreOp::Min:
      binary([](T a, T b) { return std::fmin(a, b); });
      break;
    case ScoreOp::Max:
      binary([](T a, T b) { return std::fmax(a, b); });
      break;
    case ScoreOp::Lt:
      binary([](T a, T b) { return a < b; });
      break;
    case ScoreOp::Le:
      binary([](T a, T b) { return a <= b; });
      break;
    case ScoreOp::Gt:
      binary([](T a, T b) { return a > b; });
      break;
    case ScoreOp::Ge:
      binary([](T a, T b) { return a >= b; });
      break;
    case ScoreOp::Eq:
      binary([](T a, T b) { return a == b; });
      break;
    case ScoreOp::Ne:
      binary([](T a, T b) { return a != b; });
      break;
    case ScoreOp::And:
      binary([](T a, T b) { return a != 0 && b != 0; });
      break;
    case ScoreOp::Or:
      binary([](T a, T b) { return a != 0 || b != 0; });
      break;
    case ScoreOp::Where: {
      const auto &c = operand(0), &a = operand(1), &b = operand(2);
      for (size_t i = 0; i < n; ++i)
        out[i] = c[i] != 0 ? a[i] : b[i];
      break;
    }
    }
  }
}

template <class T> int64_t NodeRows<T>::index(const ScoreNode &node, size_t d, size_t i) const {
  const int operand = node.operands[d];
  const int64_t at = integer_[size_t(operand)] ? integer(operand, first_key_ + int64_t(i))
                                               : scoreIndex(double(values_[size_t(operand)][i]));
  return std::clamp<int64_t>(at, 0, tensors_[size_t(node.slot)].shape[d] - 1);
}

template <class T> int64_t NodeRows<T>::element(int node, size_t i) const {
  const ScoreNode &n = nodes_[size_t(node)];
  int64_t at = 0;
  for (size_t d = 0; d < n.operands.size(); ++d)
    at = at * tensors_[size_t(n.slot)].shape[d] + index(n, d, i);
  return at;
}

template <class T> int64_t NodeRows<T>::integer(int node, int64_t key) const {
  const ScoreRow &row = row_;
  const ScoreNode &n = nodes_[size_t(node)];
  auto operand = [&](int i) { return integer(n.operands[size_t(i)], key); };
  switch (n.op) {
  case ScoreOp::Batch:
    return row.b;
  case ScoreOp::Head:
    return row.h;
  case ScoreOp::HeadK:
    return row.hk;
  case ScoreOp::Query:
    return row.q;
  case ScoreOp::Key:
    return key;
  case ScoreOp::SeqlenQ:
    return row.sq;
  case ScoreOp::SeqlenK:
    return row.sk;
  case ScoreOp::Neg:
    return -operand(0);
  case ScoreOp::Abs:
    return std::abs(operand(0));
  case ScoreOp::Add:
    return operand(0) + operand(1);
  case ScoreOp::Sub:
    return operand(0) - operand(1);
  case ScoreOp::Mul:
    return operand(0) * operand(1);
  case ScoreOp::Mod:
    return int64_t(scoreRemainder(double(operand(0)), double(operand(1))));
  case ScoreOp::Min:
    return std::min(operand(0), operand(1));
  case ScoreOp::Max:
    return std::max(operand(0), operand(1));
  default: // a constant: nothing else is a whole number
    return int64_t(n.value);
  }
}

template class NodeRows<float>;
template class NodeRows<double>;
template class ScoreRows<float>;
template class ScoreRows<double>;

} // namespace flashplus::reference
