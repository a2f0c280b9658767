// SPDX-License-Identifier: BSD-3-Clause
// What is visible in a backward: causal, windows, sequences of any length in one batch.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

TEST_SUITE_BEGIN("backward_mask");

TEST_CASE("backward mask: every window, with more keys than rows and fewer") {
  std::vector<Case> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{97, 97}, {65, 130}, {130, 50}, {7, 200}, {200, 7}})
    for (auto [left, right] : {std::pair<int, int>{-1, 0},
                               {0, 0},
                               {9, 3},
                               {64, 0},
                               {-1, 6},
                               {70, -1},
                               {0, -1},
                               {1000, 1000},
                               {3, 64}})
      cases.push_back(
          {.batch = 2, .sq = sq, .sk = sk, .hq = 2, .d = 40, .window_left = left, .window_right = right});
  const std::vector<DType> dtypes = Session::get().dtypes();
  std::vector<BackwardCase> all = backwards(cases);
  for (size_t at = 0; at < all.size(); ++at) // each window in each storage type, each shape too
    all[at].forward.dtype = dtypes[(at + at / 9) % dtypes.size()];
  checkBackward(all);
}

TEST_CASE("backward mask: causal, the diagonal at every place in a tile") {
  std::vector<Case> cases;
  for (int64_t shift : {-130, -65, -64, -63, -49, -48, -47, -1, 0, 1, 15, 47, 48, 63, 64, 65, 95, 96, 97})
    cases.push_back({.sq = 133, .sk = 133 + shift, .hq = 1, .d = 32, .causal = true});
  checkBackward(cases);
}

TEST_CASE("backward mask: packed sequences, some empty") {
  std::vector<Case> cases;
  for (bool causal : {false, true})
    for (int64_t d : {32, 40}) {
      Case c = {.hq = 4, .hk = 2, .d = d, .causal = causal};
      c.ragged_q = {3, 0, 97, 20, 65};
      c.ragged_k = {64, 5, 130, 0, 65};
      cases.push_back(c);
      c.tail_q = 7;
      c.tail_k = 5;
      cases.push_back(c);
      c.max_q = 400;
      c.max_k = 1000;
      cases.push_back(c);
      c.used_q = {2, 0, 50, 20, 0};
      c.used_k = {64, 1, 100, 0, 65};
      cases.push_back(c);
    }
  checkBackward(cases);
}

TEST_CASE("backward mask: all sequences are empty, on one side or both") {
  checkBackward(std::vector<Case>{{.ragged_q = {0, 0}, .ragged_k = {0, 0}},
                                  {.ragged_q = {0, 0}, .ragged_k = {3, 70}},
                                  {.ragged_q = {3, 70}, .ragged_k = {0, 0}, .tail_k = 2}});
}

TEST_CASE("backward mask: rows in use, with garbage behind them") {
  std::vector<Case> cases;
  for (bool causal : {false, true}) {
    cases.push_back({.batch = 3,
                     .sq = 97,
                     .sk = 130,
                     .hq = 4,
                     .hk = 2,
                     .d = 40,
                     .used_q = {97, 0, 49},
                     .used_k = {1, 130, 66},
                     .causal = causal});
    cases.push_back({.batch = 3, .sq = 65, .sk = 70, .d = 64, .used_k = {0, 70, 63}, .causal = causal});
    cases.push_back(
        {.batch = 3, .sq = 65, .sk = 70, .d = 64, .used_q = {64, 1, 0}, .causal = causal, .window_left = 20});
  }
  checkBackward(cases);
}

TEST_CASE("backward mask: rows whose lse is no number have no part in it, whatever they see") {
  std::vector<BackwardCase> cases;
  for (bool causal : {false, true})
    for (auto [sq, sk] : {std::pair<int64_t, int64_t>{7, 200}, {97, 70}})
      cases.push_back(
          {.forward = {.batch = 2, .sq = sq, .sk = sk, .hq = 4, .hk = 2, .d = 40, .causal = causal},
           .dlse = true,
           .delta = true,
           .infinite_lse = true});
  checkBackward(forEveryDtype(cases));
}

TEST_SUITE_END();
