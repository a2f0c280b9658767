// SPDX-License-Identifier: BSD-3-Clause
// Indices of a score's tensors that leave the tensor: clamped to its ends, whatever they are worked out from.
// On a CPU the tensors lie at pages that fault; on the emulator nothing is near them, and a read outside is
// an error.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// The tensors begin or end at a page that faults.
void checkAtEdges(std::vector<Case> cases) {
  if (Session::get().onCpu())
    for (size_t i = 0, n = cases.size(); i < n; ++i) {
      cases.push_back(cases[i]);
      cases.back().aux_at_start = true;
    }
  check(forEveryDtype(cases));
}

/// One row, a short and a tall tile; more rows than keys and fewer.
void checkIndex(Case base) {
  std::vector<Case> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{1, 133}, {7, 65}, {97, 70}}) {
    cases.push_back(base);
    cases.back().batch = 2;
    cases.back().hq = 4;
    cases.back().hk = 2;
    cases.back().sq = sq;
    cases.back().sk = sk;
  }
  checkAtEdges(std::move(cases));
}

std::vector<Aux> table(std::vector<int64_t> shape) { return {{.name = "t", .shape = std::move(shape)}}; }

} // namespace

TEST_SUITE_BEGIN("score");

TEST_CASE("score: an index leaves its tensor only where a mask hides the key") {
  checkIndex({.causal = true, .score = "s + t[q + sk - sq - k]", .aux = table({133})});
  checkIndex(
      {.window_left = 9, .window_right = 4, .score = "s + t[q + sk - sq - k + 4]", .aux = table({14})});
  checkIndex({.causal = true, .score = "s + t[h, q + sk - sq - k]", .aux = table({4, 133}), .num_splits = 2});
}

TEST_CASE("score: an index before the first element reads the first, one past the last the last") {
  checkIndex({.score = "s + t[k - 1]", .aux = table({133})});
  checkIndex({.score = "s + t[q - k]", .aux = table({5})});
  checkIndex({.score = "s + t[q + k]", .aux = table({50})});
  checkIndex({.score = "s + t[-1]", .aux = table({3})});
  checkIndex({.causal = true, .score = "s + t[-k] + t[b - 1] + t[h + 1] + t[sk - 3]", .aux = table({4})});
  checkIndex({.softcap = 3, .alibi = Alibi::PerBatch, .score = "s + t[k * 3]", .aux = table({133})});
}

TEST_CASE("score: an index that no integer holds") {
  for (const char *index :
       {"k + 1e9", "k - 1e9", "0 / 0", "exp(100)", "exp(100) * (q - k)", "-1e38", "3e9 - k", "s * 1e30",
        "log(0 * s)", "log(-1 - s * s)", "1e9 * k * k", "q * sk * sk * sk", "1e20 * q"}) {
    const std::string score = std::string("s + t[") + index + "]";
    checkIndex({.score = score, .aux = table({7})});
  }
  checkIndex({.causal = true, .score = "s + t[0 / 0, exp(q), -exp(k)]", .aux = table({2, 3, 4})});
}

TEST_CASE("score: every dimension is clamped by itself") {
  const char *score = "s + t[b + 5, h - 1, q - 3, 2 * k]";
  for (bool transposed : {false, true})
    checkIndex({.score = score, .aux = {{.name = "t", .shape = {2, 4, 97, 133}, .transposed = transposed}}});
  checkIndex({.score = score, .aux = table({1, 1, 1, 1})});
  checkIndex({.score = "s + t[q + 0] + u[k + 0, q - k]",
              .aux = {{.name = "t", .shape = {1}}, {.name = "u", .shape = {70, 1}}}});
}

TEST_CASE("score: a tensor with fewer rows than a sequence that the library does not know") {
  Case ragged = {.hq = 4, .hk = 2, .score = "s + t[k] + u[b, q]",
                 .aux = {{.name = "t", .shape = {33}}, {.name = "u", .shape = {3, 2}}}};
  ragged.ragged_q = {5, 0, 70};
  ragged.ragged_k = {40, 9, 133};
  Case used = {.batch = 2, .sq = 37, .sk = 90, .score = "s + t[k] * u[b, q]", .aux = ragged.aux};
  used.used_q = {37, 3};
  used.used_k = {90, 20};
  checkAtEdges({ragged, used});
}

TEST_CASE("score: whole numbers are exact as indices, also where fp32 is not") {
  for (const char *index : {"k + 16777216 - 16777216", "abs(q - k)", "max(q, k) - min(q, k)", "-(k - q)",
                            "2 * k - q", "16777216 + q + sk - sq - k - 16777216", "abs(-k) * 2 / 2"}) {
    const std::string score = std::string("s + t[") + index + "]";
    checkIndex({.causal = true, .score = score, .aux = table({140})});
  }
}

TEST_CASE("score: an index by division is that of the exact quotient") {
  for (const char *index :
       {"k / 41", "(k + q) / 3", "abs(q - k) / 49 * 2", "(k - q) / 7 + 9", "q / (1 + k)"}) {
    const std::string score = std::string("s + t[") + index + "]";
    checkIndex({.score = score, .aux = table({24})});
  }
}

TEST_SUITE_END();
