// SPDX-License-Identifier: BSD-3-Clause
// What becomes of a score: scale, softcap, ALiBi, and functions that are given only as text.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// One row, a short and a tall tile; more rows than keys and fewer.
std::vector<Case> onShapes(const Case &base) {
  std::vector<Case> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{1, 133}, {7, 65}, {97, 70}}) {
    cases.push_back(base);
    cases.back().batch = 2;
    cases.back().hq = 4;
    cases.back().hk = 2;
    cases.back().sq = sq;
    cases.back().sk = sk;
  }
  return cases;
}

void checkScore(const Case &base) { check(forEveryDtype(onShapes(base))); }

std::vector<float> cycle(int64_t n, int64_t period) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i)
    values.push_back(float(i / period % 3));
  return values;
}

} // namespace

TEST_SUITE_BEGIN("score");

TEST_CASE("score: any softmax scale") {
  for (float scale : {0.0f, 1.0f, -0.2f, 3.0f, 40.0f, -40.0f, 1e-4f, 1e-30f})
    checkScore({.d = 32, .scale = scale});
  checkScore({.d = 32, .causal = true, .scale = 1.0f});
  checkScore({.d = 32, .scale = -2.0f, .score = "s + 0.5"});
  checkScore({.d = 32, .scale = 0.0f, .score = "s + 0.5"});
}

TEST_CASE("score: softcap") {
  checkScore({.softcap = 1.5f});
  checkScore({.causal = true, .scale = 4.0f, .softcap = 30});
  checkScore({.window_left = 9, .window_right = 4, .scale = -1.0f, .softcap = 0.1f});
}

TEST_CASE("score: ALiBi") {
  checkScore({.alibi = Alibi::PerHead});
  checkScore({.causal = true, .alibi = Alibi::PerHead});
  checkScore({.window_left = 20, .alibi = Alibi::PerBatch});
  checkScore({.causal = true, .softcap = 5, .alibi = Alibi::PerBatch});
}

TEST_CASE("score: text with tensors") {
  checkScore({.score = "s + bias[h, q, k]", .aux = {{.name = "bias", .shape = {4, 97, 133}}}});
  checkScore({.causal = true,
              .score = "s + bias[b, h, q, k]",
              .aux = {{.name = "bias", .shape = {2, 4, 97, 133}, .transposed = true}}});
  checkScore({.score = "s * gain[hk] + shift[b]",
              .aux = {{.name = "gain", .shape = {2}}, {.name = "shift", .shape = {2}}}});
  // An index that is itself read from a tensor.
  checkScore({.score = "s + table[bucket[k]]",
              .aux = {{.name = "table", .shape = {3}},
                      {.name = "bucket", .shape = {133}, .values = cycle(133, 5)}}});
  // Relative position: one tensor over q - k.
  checkScore({.score = "s + rel[h, q - k + 133]", .aux = {{.name = "rel", .shape = {4, 240}}}});
}

TEST_CASE("score: documents, a mask that is data; some rows see nothing") {
  const std::string score = "where(dq[b, q] == dk[b, k], s, -1 / 0)";
  for (float empty : {kInf, -kInf})
    checkScore({.score = score,
                .aux = {{.name = "dq", .shape = {2, 97}, .values = cycle(194, 20)},
                        {.name = "dk", .shape = {2, 133}, .values = cycle(266, 40)}},
                .lse_empty = empty});
}

TEST_CASE("score: text with scalars") {
  checkScore({.score = "a * s + c", .scalars = {{"a", 0.3f}, {"c", -2.0f}}});
  checkScore({.causal = true, .score = "min(max(s, lo), hi)", .scalars = {{"lo", -0.5f}, {"hi", 0.75f}}});
  checkScore({.softcap = 3,
              .alibi = Alibi::PerHead,
              .score = "s * w - w2",
              .scalars = {{"w", 1.5f}, {"w2", 0.25f}}});
}

TEST_CASE("score: positions and lengths") {
  checkScore({.score = "s - 0.03 * abs(q + sk - sq - k)"});
  checkScore({.score = "s + hk - h * 0.25 + b * 0.5"});
  checkScore({.score = "s * (sk - k) / sk + q / sq"});
  checkScore({.score = "where(k <= q, s, s * 0.5)"});
  checkScore({.score = "s + (k < q) - (k <= q) * 0.5 + (k > q) * 2 - (k >= q) + (k == q) - 0.25 * (k != q)"});
}

TEST_CASE("score: every function") {
  checkScore({.score = "exp(-abs(s))"});
  checkScore({.score = "log(1 + s * s)"});
  checkScore({.score = "sqrt(abs(s)) - neg(s)"});
  checkScore({.score = "tanh(s) * 3"});
  checkScore({.score = "max(s, -s) / (1 + min(s, 0) * min(s, 0))"});
  checkScore({.score = "sigmoid(s * 4) - sigmoid(-300) + sigmoid(300)"});
}

TEST_CASE("score: what jumps is worked out exactly: floor, remainders, and conditions of them") {
  checkScore({.score = "where(floor(q / 41) == floor(k / 41), s, -inf)"});
  checkScore({.causal = true, .score = "where(floor(q / 16) == floor(k / 16) or k % 8 == 7, s, -inf)"});
  checkScore({.score = "s + (q - k) % 7 * 0.1 - (k - q) % -3 * 0.2 + (k + 0.5) % 1.25"});
  checkScore({.score = "s + (k * a) % c", .scalars = {{"a", 3.0f}, {"c", 41.0f}}});
  checkScore({.score = "s + floor(-k / 3) * 0.1 + 5 % inf"});
  checkScore({.score = "where(not (k % 2 == 1 and q % 3 == 0) and not (k == 3 or q == 5), s, -inf)"});
  checkScore({.score = "(s and k) + (s - s or q % 2) + (not k)"});
  checkScore({.score = "s + t[(q - k) % 5] + u[h, k % 3]",
              .aux = {{.name = "t", .shape = {5}}, {.name = "u", .shape = {4, 3}}}});
}

TEST_CASE("score: one that ignores q and k") {
  checkScore({.score = "0.5"});
  checkScore({.causal = true, .score = "k * 0.01"});
}

TEST_SUITE_END();
