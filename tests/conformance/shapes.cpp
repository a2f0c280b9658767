// SPDX-License-Identifier: BSD-3-Clause
// Sizes: head dims, heads, sequence lengths around every tile's edge, and nothing at all.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <array>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// Lengths of query sequences that meet every schedule of every target: one row, a short tile, a tall tile
/// and a rest.
constexpr std::array<int64_t, 3> kHeights = {1, 7, 97};

std::vector<Case> everyHeight(Case c) {
  std::vector<Case> cases;
  for (int64_t sq : kHeights) {
    c.sq = sq;
    c.sk = 37 + 45 * int64_t(cases.size()); // 37, 82, 127
    cases.push_back(c);
  }
  return cases;
}

void append(std::vector<Case> &cases, const std::vector<Case> &more) {
  cases.insert(cases.end(), more.begin(), more.end());
}

} // namespace

TEST_SUITE_BEGIN("shapes");

TEST_CASE("shapes: every head dim that is a multiple of 8") {
  std::vector<Case> cases;
  for (int64_t d = 8; d <= 256; d += 8)
    append(cases, everyHeight({.d = d, .causal = d % 16 == 0}));
  check(forEveryDtype(cases));
}

TEST_CASE("shapes: head dims that need padding") {
  std::vector<Case> cases;
  for (int64_t d : {1, 2, 3, 7, 9, 17, 33, 100, 127, 129, 255})
    append(cases, everyHeight({.d = d, .causal = d % 3 == 0}));
  check(forEveryDtype(cases));
}

TEST_CASE("shapes: head dim of v differs") {
  constexpr std::pair<int64_t, int64_t> dims[] = {{64, 128}, {128, 64}, {192, 128}, {8, 256},
                                                  {256, 8},  {40, 72},  {96, 17},   {17, 96},
                                                  {33, 100}, {1, 255},  {255, 1},   {24, 16}};
  std::vector<Case> cases;
  for (auto [d, dv] : dims)
    append(cases, everyHeight({.d = d, .dv = dv}));
  check(forEveryDtype(cases));
}

TEST_CASE("shapes: heads, groups of heads and batches") {
  std::vector<Case> cases;
  for (auto [hq, hk] : {std::pair<int64_t, int64_t>{1, 1}, {4, 4}, {6, 2}, {8, 1}, {12, 3}, {5, 5}})
    for (int64_t batch : {1, 3})
      for (int64_t sq : kHeights)
        cases.push_back({.batch = batch, .sq = sq, .sk = 70, .hq = hq, .hk = hk, .d = 32});
  check(forEveryDtype(cases));
}

TEST_CASE("shapes: one row of more key heads than a work item has, in any layout") {
  const Layout heads_first{.order = Layout::Order::Bhsd, .gap = 3, .shift = 1};
  std::vector<Case> cases;
  for (auto [hq, hk] : {std::pair<int64_t, int64_t>{8, 8}, {9, 9}, {20, 20}, {24, 12}, {44, 11}, {18, 2}})
    for (int splits : {0, 1, 3}) {
      const Case c{
          .batch = 2, .sq = 1, .sk = 83, .hq = hq, .hk = hk, .d = 40, .dv = 24, .num_splits = splits};
      cases.push_back(c);
      Case scored = c; // tells query heads and key heads apart
      scored.alibi = Alibi::PerHead;
      scored.score = "s * (1 - 0.02 * hk)";
      scored.window_left = 40;
      scored.window_right = 0;
      cases.push_back(scored);
      Case strided = c;
      strided.k_layout = strided.v_layout = heads_first;
      cases.push_back(strided);
      cases.push_back({.hq = hq,
                       .hk = hk,
                       .d = 40,
                       .ragged_q = {1, 1, 2},
                       .ragged_k = {70, 0, 129},
                       .num_splits = splits});
    }
  check(forEveryDtype(cases));
}

TEST_CASE("shapes: sequence lengths around the edges of tiles and register blocks") {
  std::vector<Case> cases;
  for (bool causal : {false, true})
    for (int64_t sq : {1, 2, 5, 6, 11, 12, 13, 15, 16, 17, 63, 64, 65, 95, 96, 97, 127, 128, 129, 200})
      for (int64_t sk : {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200})
        cases.push_back({.dtype = (sq + sk) % 2 ? DType::F16 : DType::BF16,
                         .sq = sq,
                         .sk = sk,
                         .d = 32,
                         .causal = causal});
  check(cases);
}

TEST_CASE("shapes: nothing to do") {
  for (int splits : {0, 1, 3})
    check(forEveryDtype({
        {.batch = 0, .sq = 5, .sk = 7, .num_splits = splits},
        {.batch = 2, .sq = 0, .sk = 7, .num_splits = splits},
        {.batch = 2, .sq = 0, .sk = 0, .num_splits = splits},
        {.batch = 2, .sq = 5, .sk = 7, .hq = 0, .hk = 0, .num_splits = splits},
    }));
}

TEST_CASE("shapes: no keys") {
  for (int splits : {0, 1, 3})
    for (float empty : {kInf, -kInf, -5.0f})
      check(forEveryDtype({
          {.batch = 2, .sq = 1, .sk = 0, .lse_empty = empty, .num_splits = splits},
          {.batch = 2, .sq = 7, .sk = 0, .causal = true, .lse_empty = empty, .num_splits = splits},
          {.batch = 2,
           .sq = 130,
           .sk = 0,
           .window_left = 3,
           .window_right = 3,
           .lse_empty = empty,
           .num_splits = splits},
      }));
}

TEST_CASE("shapes: without lse") {
  check(forEveryDtype({{.sq = 1, .sk = 70, .want_lse = false},
                       {.sq = 97, .sk = 70, .causal = true, .want_lse = false},
                       {.sq = 7, .sk = 300, .want_lse = false, .num_splits = 3}}));
}

TEST_SUITE_END();
