// SPDX-License-Identifier: BSD-3-Clause
// Sequences of different lengths: packed (cu_seqlens), in part unused (seqused), or both.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

const std::vector<int64_t> kQ = {5, 0, 17, 1, 130, 0, 64}, kK = {9, 4, 0, 33, 70, 0, 64};

/// The masks that matter to lengths.
std::vector<Case> withMasks(const Case &base) {
  std::vector<Case> cases(4, base);
  cases[1].causal = true;
  cases[2].window_left = 10;
  cases[2].window_right = 3;
  cases[3].window_left = 20;
  return cases;
}

} // namespace

TEST_SUITE_BEGIN("varlen");

TEST_CASE("varlen: packed sequences, some of length zero") {
  check(forEveryDtype(withMasks({.hq = 4, .hk = 2, .d = 40, .ragged_q = kQ, .ragged_k = kK})));
  check(forEveryDtype(withMasks({.ragged_q = {0}, .ragged_k = {0}})));
  check(forEveryDtype(withMasks({.ragged_q = {0, 0, 3}, .ragged_k = {0, 8, 0}, .lse_empty = -kInf})));
}

TEST_CASE("varlen: rows after the last sequence are neither read nor written") {
  check(forEveryDtype(withMasks({.ragged_q = kQ, .ragged_k = kK, .tail_q = 70, .tail_k = 90})));
}

TEST_CASE("varlen: max_seqlen far larger than true") {
  check(forEveryDtype(withMasks(
      {.ragged_q = kQ, .ragged_k = kK, .tail_q = 300, .tail_k = 200, .max_q = 1 << 20, .max_k = 1 << 24})));
  check(forEveryDtype(
      {{.ragged_q = {1, 1, 1}, .ragged_k = {40, 3, 70}, .max_q = 4000, .max_k = 4000, .num_splits = 0}}));
}

TEST_CASE("varlen: one query row a sequence") {
  check(forEveryDtype(
      withMasks({.hq = 8, .hk = 2, .ragged_q = {1, 1, 0, 1, 1}, .ragged_k = {1, 100, 64, 257, 0}})));
}

TEST_CASE("varlen: many short sequences") {
  std::vector<int64_t> q, k;
  for (int64_t b = 0; b < 70; ++b) {
    q.push_back(b * 7 % 19);
    k.push_back(b * 11 % 31);
  }
  check(forEveryDtype(withMasks({.d = 16, .ragged_q = q, .ragged_k = k})));
}

TEST_CASE("varlen: seqused of dense sequences") {
  Case c = {.batch = 4, .sq = 20, .sk = 130};
  c.used_k = {0, 1, 77, 130};
  check(forEveryDtype(withMasks(c)));
  c.used_q = {20, 0, 7, 19};
  check(forEveryDtype(withMasks(c)));
  c.used_k = {};
  check(forEveryDtype(withMasks(c)));
  // More than there is counts as all.
  c.used_k = {1000, 5, 131, 130};
  check(forEveryDtype(withMasks(c)));
}

TEST_CASE("varlen: seqused of packed sequences") {
  check(forEveryDtype(withMasks({.ragged_q = kQ,
                                 .ragged_k = kK,
                                 .tail_q = 3,
                                 .used_q = {5, 0, 9, 1, 100, 3, 64},
                                 .used_k = {4, 4, 0, 0, 70, 0, 65}})));
  check(forEveryDtype(withMasks({.ragged_q = kQ, .ragged_k = kK, .used_k = {1, 2, 3, 4, 5, 6, 7}})));
}

TEST_CASE("varlen: scores know the sequence's own lengths and batch entry") {
  check(forEveryDtype({
      {.ragged_q = kQ, .ragged_k = kK, .alibi = Alibi::PerBatch},
      {.ragged_q = kQ, .ragged_k = kK, .causal = true, .alibi = Alibi::PerHead},
      {.ragged_q = kQ, .ragged_k = kK, .score = "s + 0.1 * b - k / sk + q / sq"},
      {.batch = 3,
       .sq = 9,
       .sk = 70,
       .used_q = {3, 9, 0},
       .used_k = {64, 3, 70},
       .score = "s * (sk - k) / sk + sq"},
  }));
}

TEST_SUITE_END();
