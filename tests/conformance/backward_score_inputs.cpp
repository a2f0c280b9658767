// SPDX-License-Identifier: BSD-3-Clause
// Gradients of a score's own tensors and scalars, of slopes and of softcap, against fp64: every function,
// every way in which scores share an element, indices that leave their tensor.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// More rows than keys and fewer, two query heads a key head.
std::vector<BackwardCase> onShapes(const Case &base) {
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
  return backwards(cases);
}

/// Each in one storage type.
void checkInTurn(const std::vector<Case> &bases) {
  const std::vector<DType> dtypes = Session::get().dtypes();
  std::vector<BackwardCase> all;
  for (size_t i = 0; i < bases.size(); ++i)
    for (BackwardCase c : onShapes(bases[i])) {
      c.forward.dtype = dtypes[i % dtypes.size()];
      all.push_back(c);
    }
  checkBackward(all);
}

Aux table(const char *name, std::vector<int64_t> shape) { return {.name = name, .shape = std::move(shape)}; }

std::vector<float> cycle(int64_t n, int64_t period, int64_t values) {
  std::vector<float> all;
  for (int64_t i = 0; i < n; ++i)
    all.push_back(float(i / period % values));
  return all;
}

} // namespace

TEST_SUITE_BEGIN("backward_score");

TEST_CASE("score gradients: scalars, by every function") {
  checkInTurn(
      {{.score = "a * s + c", .scalars = {{"a", 0.3f}, {"c", -2.0f}}},
       {.score = "exp(-abs(a * s) * c)", .scalars = {{"a", 0.6f}, {"c", 0.8f}}},
       {.causal = true, .score = "log(a + s * s)", .scalars = {{"a", 1.5f}}},
       {.score = "sqrt(a + c * s * s)", .scalars = {{"a", 1.5f}, {"c", 0.5f}}},
       {.window_left = 9, .window_right = 4, .score = "tanh(s * a) * 3", .scalars = {{"a", 0.7f}}},
       {.score = "min(max(s, a), c)", .scalars = {{"a", -0.5f}, {"c", 0.75f}}},
       {.score = "where(s > a, s * c, s / d)", .scalars = {{"a", 0.1f}, {"c", 0.4f}, {"d", 2.0f}}},
       {.score = "-(s - a) / (c + s * s)", .scalars = {{"a", 0.4f}, {"c", 2.0f}}},
       {.score = "s - a * abs(q + sk - sq - k) + c * (q > k)", .scalars = {{"a", 0.05f}, {"c", 1.0f}}}});
}

TEST_CASE("score gradients: sigmoid, remainders, floor and conditions") {
  checkInTurn({{.score = "s * sigmoid(a) + (k * c) % 3 * a", .scalars = {{"a", 0.3f}, {"c", 0.4f}}},
               {.score = "s + (k + 0.5) % c * 0.1", .scalars = {{"c", 7.0f}}},
               {.causal = true,
                .score = "where(k % 2 == 0 or not q - k > 3 and q % 3 != 1, s * a, s) + t[(q - k) % 5]",
                .aux = {table("t", {5})},
                .scalars = {{"a", 0.4f}}},
               {.score = "where(floor(q / 41) == floor(k / 41), s * sigmoid(g[h] + s), -inf)",
                .aux = {table("g", {4})}}});
}

TEST_CASE("score gradients: ALiBi and softcap") {
  checkInTurn({{.alibi = Alibi::PerHead},
               {.causal = true, .alibi = Alibi::PerBatch},
               {.scale = 2.0f, .softcap = 2},
               {.window_left = 20, .softcap = 3, .alibi = Alibi::PerBatch}});
}

TEST_CASE("score gradients: tensors by head, by row, by key, by both") {
  checkInTurn(
      {{.score = "s * gain[hk] + shift[b, h]", .aux = {table("gain", {2}), table("shift", {2, 4})}},
       {.causal = true, .score = "s + rows[h, q]", .aux = {table("rows", {4, 97})}},
       {.score = "s + keys[k] * rows[q]", .aux = {table("keys", {70}), table("rows", {97})}},
       {.window_left = 30, .score = "s + bias[b, h, q, k]", .aux = {table("bias", {2, 4, 97, 70})}},
       {.score = "s + one[0] + s * one[2]", .aux = {table("one", {3})}},
       {.score = "s + bias[q, k]", .aux = {{.name = "bias", .shape = {97, 70}, .transposed = true}}}});
}

TEST_CASE("score gradients: an index that leaves its tensor gives to the element that it reads") {
  checkInTurn({{.score = "s + rel[h, q - k + 8]", .aux = {table("rel", {4, 17})}},
               {.causal = true, .score = "s + t[q + sk - sq - k]", .aux = {table("t", {97})}},
               {.score = "s * t[k * 3]", .aux = {table("t", {100})}},
               {.score = "s + t[-1] + t[b - 1] + t[sk + 5]", .aux = {table("t", {3})}},
               {.score = "s + t[k / 3] * t[s]", .aux = {table("t", {9})}},
               {.score = "s + t[k / 0]", .aux = {table("t", {9})}}});
}

TEST_CASE("score gradients: what an index or a condition reads has none") {
  checkInTurn(
      {{.score = "s + table[bucket[k]]",
        .aux = {table("table", {3}), {.name = "bucket", .shape = {70}, .values = cycle(70, 5, 3)}}},
       {.score = "where(t[k] > a, s, s * 0.5)", .aux = {table("t", {70})}, .scalars = {{"a", 0.2f}}}});
}

TEST_CASE("score gradients: scores that are -infinity, and rows that see nothing") {
  std::vector<float> hidden(70);
  for (size_t i = 0; i < hidden.size(); ++i)
    hidden[i] = i % 7 == 3 ? -kInf : float(i % 5) * 0.25f;
  checkInTurn({{.score = "s + t[k] * a",
                .aux = {{.name = "t", .shape = {70}, .values = hidden}},
                .scalars = {{"a", 1.5f}}},
               {.causal = true,
                .score = "log(t[k] * exp(s))",
                .aux = {{.name = "t", .shape = {70}, .values = cycle(70, 3, 3)}}},
               {.score = "where(dq[b, q] == dk[b, k], a * s, -1 / 0)",
                .aux = {{.name = "dq", .shape = {2, 97}, .values = cycle(194, 20, 3)},
                        {.name = "dk", .shape = {2, 70}, .values = cycle(140, 30, 3)}},
                .scalars = {{"a", 0.8f}}}});
}

TEST_CASE("score gradients: packed sequences, some empty, and dropout") {
  Case packed = {.hq = 4, .hk = 2, .d = 32};
  packed.ragged_q = {3, 0, 97, 20, 5};
  packed.ragged_k = {64, 5, 130, 0, 40};
  packed.used_k = {64, 5, 100, 0, 33};
  packed.score = "s * gain[b] + rel[q - k + 8]";
  packed.aux = {table("gain", {5}), table("rel", {17})};
  Case dropped = {.batch = 2,
                  .sq = 97,
                  .sk = 70,
                  .hq = 4,
                  .hk = 2,
                  .d = 32,
                  .causal = true,
                  .softcap = 2,
                  .alibi = Alibi::PerHead,
                  .dropout = 0.3f,
                  .rng_seed = 7,
                  .rng_offset = 4};
  checkBackward(forEveryDtype(backwards({packed, dropped})));
}

TEST_CASE("score gradients: are written where there is no key, and no query") {
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {0, 0}}) {
    Case c = {.batch = 2, .sq = sq, .sk = sk, .hq = 2, .hk = 2, .d = 32, .alibi = Alibi::PerHead};
    c.score = "a * s";
    c.scalars = {{"a", 1.0f}};
    checkBackward(forEveryDtype(backwards({c})));
  }
}

TEST_SUITE_END();
