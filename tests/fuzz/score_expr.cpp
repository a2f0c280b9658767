// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a score expression: refused with a message, or an expression whose canonical text is the same
// expression, whose nodes are in evaluation order, and which evaluates: at any scores and positions, in fp64
// and fp32, inside its tensors. Its gradient is of bounded size, has the expression's value and prints.
#include "reference/score_rows.h"
#include "spec/score_gradient.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>
#include <limits>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

/// `expr` on rows at the ends of what positions and scores can be. Tensors are of exactly the size that they
/// say, so that the address sanitizer sees a read outside, and the others an index that no integer holds.
template <class T> void evaluateRows(const ScoreExpr &expr) {
  reference::Problem problem;
  problem.score = expr;
  problem.scalars = {
      1, -2, 3e38f, 0, 5, std::numeric_limits<float>::quiet_NaN(), 7, std::numeric_limits<float>::infinity()};
  std::vector<std::vector<float>> data;
  for (size_t slot = 0; slot < expr.tensors.size(); ++slot) {
    reference::AuxTensor t;
    int64_t elements = 1;
    for (int d = 0; d < expr.tensors[slot].rank; ++d) {
      t.strides[size_t(d)] = elements;
      elements *= t.shape[size_t(d)] = 1 + (int64_t(slot) + d) % 3;
    }
    std::vector<float> &values = data.emplace_back(size_t(elements));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = i % 2 ? -1e9f * float(i) : float(i);
    t.data = values.data();
    problem.tensors.push_back(t);
  }
  reference::ScoreRows<T> rows(problem);
  constexpr T kInf = std::numeric_limits<T>::infinity(), kLarge = std::numeric_limits<T>::max();
  for (int64_t end : {int64_t(8), kMaxScorePosition})
    for (int64_t at : {int64_t(0), end - 8}) {
      T s[8] = {0, 1, -kInf, kInf, kLarge, -kLarge, std::numeric_limits<T>::quiet_NaN(), T(-0.5)};
      rows.apply({.b = at, .h = end, .hk = at, .q = at, .sq = end, .sk = end}, at, s);
    }
}

void checkGradient(const ScoreExpr &expr, const ScoreExpr::Point &at, double value,
                   std::span<const double> scalars,
                   const std::function<double(int, std::span<const int64_t>)> &tensor) {
  const ScoreGradient g = differentiate(expr);
  require(g.nodes.size() <= size_t(kMaxScoreGradientNodes) && g.facts.size() == g.nodes.size());
  for (size_t i = 0; i < g.nodes.size(); ++i)
    for (int operand : g.nodes[i].operands)
      require(operand >= 0 && size_t(operand) < i);
  const std::vector<double> v = evaluateNodes(g.nodes, at, scalars, tensor);
  require(v[size_t(g.value)] == value || (value != value && v[size_t(g.value)] != v[size_t(g.value)]));
  require(g.dscalars.size() == expr.scalars.size());
  for (const ScoreGradient::Read &read : g.reads)
    require(g.nodes[size_t(read.node)].op == ScoreOp::Tensor && g.nodes[size_t(read.node)].slot == read.slot);
  require(g.text().size() <= 100 * g.nodes.size() + 1000 && !g.text(g.ds).empty());
}

} // namespace

std::vector<std::string> seeds() {
  return {"s + t[k - 1] + t[0 / 0]",
          "s + t[q + sk - sq - k, exp(100) * k, -1e38]",
          "u[t[s * 1e30]] + t[abs(k * 3 - 7) * min(q, 5)]",
          "cap * tanh(s / cap)",
          "s - slopes[h] * abs(q + sk - sq - k)",
          "s + bias[b, h, q, k]",
          "where(k % 4 == 0 and not (q % sk < 3 or floor(s)), s % t[(q - k) % 7], -inf)",
          "sigmoid(s % -x) % sigmoid(floor(k / 3)) or inf",
          "where(q - k > 1e3, -1.5e-7, min(s, max(exp(s), sqrt(log(hk)))))"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto expr = ScoreExpr::parse({reinterpret_cast<const char *>(data), size});
  if (!expr) {
    require(!expr.status().message().empty());
    return 0;
  }
  require(expr->nodes.size() <= size_t(kMaxScoreNodes));
  require(expr->scalars.size() <= size_t(kMaxScoreScalars) &&
          expr->tensors.size() <= size_t(kMaxScoreTensors));
  for (size_t i = 0; i < expr->nodes.size(); ++i)
    for (int operand : expr->nodes[i].operands)
      require(operand >= 0 && size_t(operand) < i);

  const std::string text = expr->canonical();
  auto again = ScoreExpr::parse(text);
  require(again.isOk() && again->canonical() == text && again->nodes.size() == expr->nodes.size());
  for (size_t i = 0; i < expr->nodes.size(); ++i) {
    const ScoreNode &a = expr->nodes[i], &b = again->nodes[i];
    require(a.op == b.op && float(a.value) == float(b.value) && a.slot == b.slot && a.operands == b.operands);
  }
  const double scalars[kMaxScoreScalars] = {1, 2, 3, 4, 5, 6, 7, 8};
  const ScoreExpr::Point at = {.s = 1, .b = 2, .h = 3, .hk = 1, .q = 4, .k = 5, .sq = 6, .sk = 7};
  auto tensor = [&](int slot, std::span<const int64_t> indices) {
    require(int(indices.size()) == expr->tensors[size_t(slot)].rank);
    for (int64_t index : indices)
      require(index >= 0 && index <= std::numeric_limits<int32_t>::max());
    return slot % 2 ? 0.5 : -1e30;
  };
  checkGradient(*expr, at, expr->evaluate(at, scalars, tensor), scalars, tensor);
  require(expr->clampsIndices() == again->clampsIndices());
  evaluateRows<double>(*expr);
  evaluateRows<float>(*expr);
  return 0;
}
