// SPDX-License-Identifier: BSD-3-Clause
// Attention sinks: a logit a query head in the softmax of all its rows, wherever a row is finished.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// All that sinks may have, without a kernel more.
DType sinksFor(DType dtype) {
  return dtype == DType::F16 ? DType::F32 : dtype == DType::F32 ? DType::F16 : DType::BF16;
}

/// Every case with sinks, in bf16 or in every dtype. Whether the LSE includes them takes turns.
std::vector<Case> withSinks(std::vector<Case> cases, bool every_dtype = false) {
  int n = 0;
  for (Case &c : cases = every_dtype ? forEveryDtype(cases) : cases) {
    c.sinks = sinksFor(c.dtype);
    c.lse_without_sinks = n++ % 2 == 1;
  }
  return cases;
}

} // namespace

TEST_SUITE_BEGIN("sinks");

TEST_CASE("sinks: with every mask, length and layout") {
  check(withSinks(
      {
          {.batch = 2, .sq = 97, .sk = 130, .hq = 4, .hk = 2},
          {.sq = 130, .sk = 50, .causal = true},
          {.sq = 97, .sk = 40, .causal = true, .lse_empty = -kInf},
          {.sq = 200, .sk = 211, .hq = 8, .hk = 2, .window_left = 63, .window_right = 0},
          {.sq = 40, .sk = 200, .hq = 6, .hk = 6, .d = 33, .dv = 20, .lse_gap = 3},
          {.sq = 9, .sk = 0},
          {.batch = 2, .sq = 65, .sk = 100, .want_lse = false},
          {.ragged_q = {5, 0, 100, 1},
           .ragged_k = {300, 70, 9, 129},
           .tail_q = 9,
           .hq = 4,
           .hk = 2,
           .causal = true},
          {.batch = 3, .sq = 9, .sk = 400, .used_q = {9, 0, 4}, .used_k = {400, 10, 0}},
      },
      /*every_dtype=*/true));
}

TEST_CASE("sinks: of any size, from none to one that takes all") {
  std::vector<Case> cases;
  for (int splits : {0, 1, 3})
    for (int64_t sq : {1, 90}) {
      cases.push_back({.sq = sq,
                       .sk = 150,
                       .hq = 8,
                       .hk = 2,
                       .causal = true,
                       .sink_values = {-kInf, -1000, -30, 0, 2.5f, 30, 200, 1000},
                       .num_splits = splits});
      cases.push_back({.sq = sq,
                       .sk = 0,
                       .hq = 8,
                       .hk = 2,
                       .sink_values = {-kInf, -1000, -30, 0, 2.5f, 30, 200, 1000},
                       .lse_empty = -kInf,
                       .num_splits = splits});
    }
  for (Case &c : cases = withSinks(cases))
    c.lse_without_sinks = c.sk == 0 && c.sq == 1;
  check(cases);
}

TEST_CASE("sinks: once a row, whatever the shares of the keys") {
  for (int splits : {2, 7})
    check(withSinks({
        {.batch = 2, .sq = 7, .sk = 300, .causal = true, .num_splits = splits},
        {.batch = 2, .sq = 97, .sk = 65, .hq = 4, .hk = 2, .causal = true, .num_splits = splits},
        {.ragged_q = {5, 0, 100, 1}, .ragged_k = {300, 70, 9, 129}, .causal = true, .num_splits = splits},
    }));
}

TEST_CASE("sinks: few query rows against many keys") {
  std::vector<Case> cases;
  for (int64_t group : {5, 8, 16})
    for (int64_t sk : {1, 129, 2000})
      cases.push_back({.batch = 2,
                       .sq = group < 16 ? 3 : 1,
                       .sk = sk,
                       .hq = 2 * group,
                       .hk = 2,
                       .causal = true,
                       .num_splits = 0});
  cases.push_back({.sq = 1, .sk = 20000, .hq = 8, .hk = 1, .causal = true, .num_splits = 0}); // two levels
  cases.push_back({.ragged_q = {1, 1, 1, 1, 1},
                   .ragged_k = {300, 0, 1, 129, 16},
                   .hq = 8,
                   .hk = 2,
                   .causal = true,
                   .num_splits = 0});
  cases.push_back({.batch = 2,
                   .sq = 1,
                   .sk = 3000,
                   .hq = 64,
                   .hk = 8,
                   .window_left = 127,
                   .window_right = 0,
                   .num_splits = 0}); // gpt-oss
  check(withSinks(cases));
}

TEST_CASE("sinks: of keys in pages") {
  std::vector<Case> cases;
  for (int64_t size : {1, 16})
    for (int64_t sq : {1, 70})
      cases.push_back({.batch = 2,
                       .sq = sq,
                       .sk = 300,
                       .hq = 8,
                       .hk = 2,
                       .causal = true,
                       .num_splits = 0,
                       .pages = {.size = size}});
  cases.push_back({.ragged_q = {1, 40, 0, 3},
                   .ragged_k = {129, 40, 7, 0},
                   .hq = 8,
                   .hk = 2,
                   .causal = true,
                   .num_splits = 0,
                   .pages = {.size = 16}});
  check(withSinks(cases));
}

TEST_CASE("sinks: with a score and with dropout, which leave them alone") {
  check(withSinks({
      {.sq = 70, .sk = 90, .scale = -0.3f, .softcap = 2},
      {.sq = 70, .sk = 90, .hq = 4, .alibi = Alibi::PerHead},
      {.sq = 70, .sk = 90, .hq = 4, .dropout = 0.3f, .rng_seed = 7, .rng_offset = 4},
  }));
}

TEST_CASE("sinks: one of -inf is none, and o does not ask what the LSE includes, to the bit") {
  for (int splits : {0, 1, 3})
    for (Case c : chosen({{.sq = 1, .sk = 700, .hq = 4, .hk = 1, .num_splits = splits},
                          {.sq = 80, .sk = 60, .hq = 4, .hk = 2, .num_splits = splits}})) {
      auto outputs = [](const Case &of) {
        Instance instance(of);
        return runForward(instance);
      };
      const Outputs plain = outputs(c);
      c.sinks = sinksFor(c.dtype);
      c.sink_values = {-kInf, -kInf, -kInf, -kInf};
      CHECK_MESSAGE(outputs(c) == plain, c.text());
      c.sink_values = {};
      const Outputs with = outputs(c);
      c.lse_without_sinks = true;
      const Outputs without = outputs(c);
      CHECK_MESSAGE(with.o == without.o, c.text());
      CHECK_MESSAGE(with.o != plain.o, c.text());
      CHECK_MESSAGE(with.lse != plain.lse, c.text());
      CHECK_MESSAGE(without.lse == plain.lse, c.text());
    }
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("backward sinks");

TEST_CASE("backward sinks: o and lse of the forward are all that dq, dk and dv need of them") {
  std::vector<BackwardCase> cases;
  for (Case c : withSinks({{.batch = 2, .sq = 100, .sk = 60, .hq = 4, .hk = 2, .causal = true},
                           {.ragged_q = {3, 70, 20},
                           .ragged_k = {64, 80, 0},
                           .hq = 4,
                           .hk = 1,
                           .causal = true,
                           .sink_values = {-kInf, 20, 0, -5}}})) {
    c.lse_without_sinks = false;
    cases.push_back({.forward = c, .dlse = true, .delta = true, .after_forward = true});
  }
  checkBackward(cases);
}

TEST_SUITE_END();
