// SPDX-License-Identifier: BSD-3-Clause
// Which keys a row sees: causal at the bottom right, windows on both sides, rows that see none.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <limits>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},    {1, 100},   {5, 20},   {20, 5},
                                                   {20, 20},  {7, 300},   {100, 1},  {130, 70},
                                                   {70, 130}, {128, 128}, {200, 64}, {97, 300}};

std::vector<Case> onShapes(const Case &base) {
  std::vector<Case> cases;
  for (auto [sq, sk] : kShapes) {
    cases.push_back(base);
    cases.back().sq = sq;
    cases.back().sk = sk;
  }
  return cases;
}

} // namespace

TEST_SUITE_BEGIN("mask");

TEST_CASE("mask: causal, aligned at the bottom right") {
  check(forEveryDtype(onShapes({.batch = 2, .causal = true})));
}

TEST_CASE("mask: rows that see no key give 0 and the caller's lse") {
  // sq > sk + window: rows above the first key, and with a left bound nothing else.
  for (float empty : {kInf, -kInf, 3.5f})
    check(forEveryDtype({
        {.sq = 20, .sk = 5, .causal = true, .lse_empty = empty},
        {.sq = 200, .sk = 64, .causal = true, .lse_empty = empty},
        {.sq = 200, .sk = 3, .window_left = 5, .window_right = 2, .lse_empty = empty},
        {.sq = 200, .sk = 64, .window_left = 0, .window_right = 0, .lse_empty = empty},
        {.sq = 12, .sk = 5, .causal = true, .lse_empty = empty, .num_splits = 3},
    }));
}

TEST_CASE("mask: windows") {
  constexpr int kMost = std::numeric_limits<int>::max();
  constexpr std::pair<int, int> windows[] = {
      {0, 0},       {1, 0},         {5, 0},     {0, 5},     {3, -1},   {-1, 3},  {7, 11},   {64, 64},
      {63, 0},      {64, 0},        {0, -1},    {-1, 0},    {65, 1},   {1, 65},  {1000, 0}, {0, 1000},
      {1000, 1000}, {kMost, kMost}, {kMost, 0}, {0, kMost}, {200, -1}, {-1, 200}};
  for (auto [left, right] : windows)
    check(forEveryDtype(onShapes({.hk = 2, .d = 32, .window_left = left, .window_right = right})));
}

TEST_CASE("mask: causal with a left window") {
  for (int left : {0, 1, 5, 31, 64, 65, 1000})
    check(forEveryDtype(onShapes({.d = 32, .causal = true, .window_left = left})));
}

TEST_CASE("mask: causal wins over a right window") {
  check(forEveryDtype({{.sq = 20, .sk = 40, .causal = true, .window_right = 7}}));
}

TEST_CASE("mask: a window that is far narrower than the sequence skips tiles") {
  // 1500 keys are 24 tiles of 64; a row sees 9 of them at most. check() counts the tiles.
  check(forEveryDtype({{.sq = 1500, .sk = 1500, .hq = 1, .d = 16, .window_left = 40, .window_right = 20},
                       {.sq = 600, .sk = 1500, .hq = 1, .d = 16, .causal = true, .window_left = 100}}));
}

TEST_SUITE_END();
