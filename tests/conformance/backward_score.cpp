// SPDX-License-Identifier: BSD-3-Clause
// Scores in a backward: scales, peaked, flat and constant ones, and on a CPU slopes of expressions. A GPU
// refuses the latter for the moment; what was skipped is in the summary.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// More rows than keys and fewer.
std::vector<Case> onShapes(const Case &base) {
  std::vector<Case> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{7, 65}, {97, 70}}) {
    cases.push_back(base);
    cases.back().batch = 2;
    cases.back().hq = 4;
    cases.back().hk = 2;
    cases.back().sq = sq;
    cases.back().sk = sk;
    cases.back().d = 40;
  }
  return cases;
}

void checkScore(const Case &base) { checkBackward(onShapes(base)); }

/// Each in one storage type: expressions are worked out in fp32 whatever it is.
void checkInTurn(const std::vector<Case> &bases) {
  const std::vector<DType> dtypes = Session::get().dtypes();
  std::vector<BackwardCase> all;
  for (size_t i = 0; i < bases.size(); ++i)
    for (BackwardCase c : backwards(onShapes(bases[i]))) {
      c.forward.dtype = dtypes[i % dtypes.size()];
      all.push_back(c);
    }
  checkBackward(all);
}

std::vector<float> cycle(int64_t n, int64_t period) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i)
    values.push_back(float(i / period % 3));
  return values;
}

} // namespace

TEST_SUITE_BEGIN("backward_score");

TEST_CASE("backward score: any softmax scale, from flat to peaked") {
  for (float scale : {1.0f, -0.2f, 3.0f, -3.0f, 15.0f, 1e-4f}) // with 15 scores reach 300
    checkScore({.causal = scale < 0, .scale = scale});
}

TEST_CASE("backward score: a scale of 0 has no gradient of q and k") { checkScore({.scale = 0.0f}); }

TEST_CASE("backward score: all keys alike, and all queries") {
  for (char same : {'k', 'q'})
    checkScore({.fill = [=](char tensor, int64_t b, int64_t row, int64_t head, int64_t c) {
      const int64_t r = tensor == same ? 0 : row; // an odd one out of period 23
      return float((b * 3 + r * 29 + head * 17 + c * 13 + tensor * r) % 23 - 11) / 11;
    }});
}

TEST_CASE("backward score: softcap") {
  checkInTurn({{.softcap = 1.5f},
               {.causal = true, .scale = 4.0f, .softcap = 30},
               {.window_left = 9, .window_right = 4, .scale = -0.2f, .softcap = 2}});
  // Far out, where 1 - tanh^2 is far below the rounding of tanh, for all of a row.
  for (float cap : {0.5f, 2.0f})
    checkScore({.scale = 1.5f, .softcap = cap});
}

TEST_CASE("backward score: ALiBi") {
  checkInTurn({{.alibi = Alibi::PerHead},
               {.window_left = 20, .alibi = Alibi::PerBatch},
               {.causal = true, .softcap = 5, .alibi = Alibi::PerBatch}});
}

TEST_CASE("backward score: text with tensors and scalars") {
  checkScore({.score = "s + bias[h, q, k]", .aux = {{.name = "bias", .shape = {4, 97, 70}}}});
  checkScore({.score = "s * gain[hk] + shift[b]",
              .aux = {{.name = "gain", .shape = {2}}, {.name = "shift", .shape = {2}}}});
  checkScore(
      {.score = "s + table[bucket[k]]",
       .aux = {{.name = "table", .shape = {3}}, {.name = "bucket", .shape = {70}, .values = cycle(70, 5)}}});
  checkScore({.causal = true, .score = "a * s + c", .scalars = {{"a", 0.3f}, {"c", -2.0f}}});
}

TEST_CASE("backward score: every function") {
  checkInTurn({{.score = "exp(-abs(s))"},
               {.score = "log(1 + s * s)"},
               {.causal = true, .score = "tanh(s) * 3"},
               {.score = "min(max(s, -0.5), 0.75)"},
               {.score = "where(k <= q, s, s * 0.5)"},
               {.score = "max(s, -s) / (1 + min(s, 0) * min(s, 0))"},
               {.score = "s * (sk - k) / sk + q / sq"},
               {.score = "sqrt(1 + s * s)"},
               {.softcap = 3, .alibi = Alibi::PerHead, .score = "s * 1.5 - 0.25"}});
}

TEST_CASE("backward score: one that ignores q and k") {
  checkInTurn({{.score = "0.5"}, {.causal = true, .score = "k * 0.01"}, {.score = "0.02 * (q - k)"}});
}

TEST_CASE("backward score: documents, a mask that is data; some rows see nothing") {
  for (float empty : {kInf, -kInf})
    checkScore({.score = "where(dq[b, q] == dk[b, k], s, -1 / 0)",
                .aux = {{.name = "dq", .shape = {2, 97}, .values = cycle(194, 20)},
                        {.name = "dk", .shape = {2, 70}, .values = cycle(140, 30)}},
                .lse_empty = empty});
}

TEST_SUITE_END();
