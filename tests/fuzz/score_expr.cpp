// SPDX-License-Identifier: BSD-3-Clause
// Any bytes as a score expression: refused with a message, or an expression whose canonical text is the same
// expression, whose nodes are in evaluation order, and which evaluates.
#include "spec/score.h"
#include "tests/fuzz/seeds.h"

#include <cstdlib>

using namespace flashplus;

namespace {

void require(bool condition) {
  if (!condition)
    std::abort();
}

} // namespace

std::vector<std::string> seeds() {
  return {"cap * tanh(s / cap)", "s - slopes[h] * abs(q + sk - sq - k)", "s + bias[b, h, q, k]",
          "where(q - k > 1e3, -1.5e-7, min(s, max(exp(s), sqrt(log(hk)))))"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto expr = ScoreExpr::parse({reinterpret_cast<const char *>(data), size});
  if (!expr) {
    require(!expr.status().message().empty());
    return 0;
  }
  require(expr->nodes.size() <= size_t(kMaxScoreNodes));
  require(expr->scalars.size() <= size_t(kMaxScoreScalars) && expr->tensors.size() <= size_t(kMaxScoreTensors));
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
  expr->evaluate({.s = 1, .b = 2, .h = 3, .hk = 1, .q = 4, .k = 5, .sq = 6, .sk = 7}, scalars,
                 [&](int slot, std::span<const int64_t> indices) {
                   require(int(indices.size()) == expr->tensors[size_t(slot)].rank);
                   return 0.5;
                 });
  return 0;
}
