// SPDX-License-Identifier: BSD-3-Clause
#include "reference/score_rows.h"

#include <algorithm>
#include <cmath>

namespace flashplus::reference {

template <class T> void ScoreRows<T>::apply(const Row &row, int64_t first_key, std::span<T> s) {
  if (!problem_.score.isIdentity())
    evaluate(row, first_key, s);
  if (problem_.softcap > 0) {
    const T cap = T(problem_.softcap);
    for (T &x : s)
      x = cap * std::tanh(x / cap);
  }
  if (problem_.alibi_slopes) {
    const T slope = T(problem_.alibi_slopes[(problem_.alibi_per_batch ? row.b * problem_.heads_q : 0) + row.h]);
    for (size_t i = 0; i < s.size(); ++i)
      s[i] -= slope * T(std::abs(row.q + row.sk - row.sq - first_key - int64_t(i)));
  }
}

template <class T> void ScoreRows<T>::evaluate(const Row &row, int64_t first_key, std::span<T> s) {
  const auto &nodes = problem_.score.nodes;
  const size_t n = s.size();
  values_.resize(nodes.size());
  for (size_t index = 0; index < nodes.size(); ++index) {
    const ScoreNode &node = nodes[index];
    std::vector<T> &out = values_[index];
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
      fill(problem_.scalars[node.slot]);
      break;
    case ScoreOp::Tensor: {
      const AuxTensor &t = problem_.tensors[node.slot];
      for (size_t i = 0; i < n; ++i) {
        int64_t at = 0;
        for (size_t d = 0; d < node.operands.size(); ++d)
          at += int64_t(values_[node.operands[d]][i]) * t.strides[d];
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
    case ScoreOp::Where: {
      const auto &c = operand(0), &a = operand(1), &b = operand(2);
      for (size_t i = 0; i < n; ++i)
        out[i] = c[i] != 0 ? a[i] : b[i];
      break;
    }
    }
  }
  std::copy(values_.back().begin(), values_.back().end(), s.begin());
}

template class ScoreRows<float>;
template class ScoreRows<double>;

} // namespace flashplus::reference
