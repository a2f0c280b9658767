// SPDX-License-Identifier: BSD-3-Clause
// Backwards of all sizes: head dims, heads, lengths around every tile's edge, and nothing at all.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

TEST_SUITE_BEGIN("backward_shapes");

TEST_CASE("backward shapes: head dims") {
  std::vector<Case> cases;
  for (auto [d, dv] : {std::pair<int64_t, int64_t>{8, 8},
                       {16, 16},
                       {32, 32},
                       {40, 40},
                       {59, 59},
                       {64, 64},
                       {72, 72},
                       {96, 96},
                       {111, 111},
                       {128, 128},
                       {192, 128},
                       {192, 192},
                       {256, 256}}) {
    cases.push_back({.sq = 37, .sk = 70, .d = d, .dv = dv, .causal = d % 16 == 0});
    cases.push_back({.sq = 130, .sk = 65, .d = d, .dv = dv, .causal = d % 16 == 0});
  }
  checkBackward(dtypesInTurn(backwards(cases)));
}

TEST_CASE("backward shapes: the head dim of v differs, and odd ones") {
  std::vector<Case> cases;
  for (auto [d, dv] : {std::pair<int64_t, int64_t>{64, 128},
                       {128, 64},
                       {8, 256},
                       {256, 8},
                       {40, 17},
                       {33, 100},
                       {1, 1},
                       {7, 2},
                       {255, 1},
                       {1, 255},
                       {129, 127}})
    cases.push_back({.sq = 67, .sk = 49, .d = d, .dv = dv, .causal = d > dv});
  checkBackward(dtypesInTurn(backwards(cases)));
}

TEST_CASE("backward shapes: heads, groups of heads and batches") {
  std::vector<Case> cases;
  for (auto [hq, hk] : {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {3, 1}, {8, 1}, {8, 8}, {24, 3}, {6, 2}})
    for (int64_t batch : {1, 3})
      for (auto [sq, sk] : {std::pair<int64_t, int64_t>{1, 70}, {70, 33}})
        cases.push_back({.batch = batch, .sq = sq, .sk = sk, .hq = hq, .hk = hk, .d = 32});
  checkBackward(cases);
}

TEST_CASE("backward shapes: sequence lengths around the edges of tiles and register blocks") {
  std::vector<Case> cases;
  for (bool causal : {false, true})
    for (int64_t sq : {1, 2, 12, 47, 48, 49, 63, 64, 65, 127, 129, 257})
      for (int64_t sk : {1, 15, 16, 17, 63, 64, 65, 95, 96, 97, 127, 129, 257})
        cases.push_back({.sq = sq, .sk = sk, .hq = 1, .d = 32, .causal = causal});
  std::vector<BackwardCase> all = backwards(cases);
  for (size_t i = 0; i < all.size(); ++i)
    all[i].forward.dtype = i % 2 ? DType::F16 : DType::BF16;
  checkBackward(all);
}

TEST_CASE("backward shapes: a long sequence, in many shares") {
  checkBackward(std::vector<Case>{{.sq = 1000, .sk = 1000, .causal = true}, {.sq = 17, .sk = 1500, .hq = 3}});
}

TEST_CASE(
    "backward shapes: so many heads that each has all keys, and more of dq than a thread keeps room for") {
  if (Session::get().device().device_type == kDLExtDev)
    return; // a matter of the CPU, and it takes long
  checkBackward(std::vector<Case>{
      {.batch = 5, .sq = 130, .sk = 300, .hq = 8, .hk = 8, .d = 40, .causal = true},
      {.batch = 9, .sq = 70, .sk = 200, .hq = 8, .hk = 4, .d = 64},
      {.batch = 6, .sq = 1100, .sk = 64, .hq = 8, .hk = 1, .d = 128}, // 4.3 MiB of dq in fp32 an item
      {.batch = 34, .sq = 49, .sk = 97, .hq = 1, .hk = 1, .d = 33}});
}

TEST_CASE("backward shapes: more heads in the batch than a grid's dimension has") {
  if (Session::get().device().device_type == kDLExtDev)
    return; // 65600 blocks take too long
  checkBackward({BackwardCase{.forward = {.batch = 8200, .sq = 2, .sk = 3, .hq = 8, .hk = 8, .d = 8}}});
}

TEST_CASE("backward shapes: nothing to do") {
  checkBackward(std::vector<Case>{{.batch = 0, .sq = 5, .sk = 7},
                                  {.batch = 2, .sq = 0, .sk = 0},
                                  {.batch = 2, .sq = 5, .sk = 7, .hq = 0, .hk = 0}});
}

TEST_CASE("backward shapes: no keys, and no query rows: gradients are zeros that somebody writes") {
  checkBackward(std::vector<Case>{{.batch = 2, .sq = 1, .sk = 0},
                                  {.batch = 2, .sq = 70, .sk = 0, .causal = true},
                                  {.batch = 2, .sq = 0, .sk = 70, .hq = 4, .hk = 2},
                                  {.batch = 2, .sq = 0, .sk = 1, .causal = true},
                                  {.batch = 2, .sq = 130, .sk = 0, .window_left = 3, .window_right = 3}});
}

TEST_SUITE_END();
