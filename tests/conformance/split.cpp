// SPDX-License-Identifier: BSD-3-Clause
// Plans of two steps: shares of the keys, then their combination.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

TEST_SUITE_BEGIN("split");

TEST_CASE("split: any number of shares, also more than there are tiles") {
  for (int splits : {2, 3, 7, 128})
    for (int64_t sk : {1, 64, 65, 300, 1000}) {
      std::vector<Case> cases;
      for (int64_t sq : {1, 7, 97})
        cases.push_back({.batch = 2, .sq = sq, .sk = sk, .d = 32, .num_splits = splits});
      check(forEveryDtype(cases));
    }
}

TEST_CASE("split: with every mask, score and length") {
  for (int splits : {2, 5})
    check(forEveryDtype({
        {.batch = 2, .sq = 70, .sk = 300, .causal = true, .num_splits = splits},
        {.sq = 97, .sk = 40, .causal = true, .lse_empty = -kInf, .num_splits = splits},
        {.sq = 300, .sk = 300, .window_left = 100, .window_right = 30, .num_splits = splits},
        {.sq = 7, .sk = 500, .causal = true, .softcap = 2, .alibi = Alibi::PerHead, .num_splits = splits},
        {.ragged_q = {5, 0, 100, 1}, .ragged_k = {300, 70, 0, 129}, .tail_q = 9, .num_splits = splits},
        {.ragged_q = {5, 0, 100, 1}, .ragged_k = {300, 70, 9, 129}, .causal = true, .num_splits = splits},
        {.batch = 3, .sq = 9, .sk = 400, .used_q = {9, 0, 4}, .used_k = {400, 10, 0}, .num_splits = splits},
    }));
}

TEST_CASE("split: head dims and layouts of the combination") {
  for (auto [d, dv] :
       {std::pair<int64_t, int64_t>{8, 8}, {33, 33}, {100, 64}, {128, 128}, {64, 255}, {256, 256}})
    check(forEveryDtype({{.batch = 2,
                          .sq = 5,
                          .sk = 200,
                          .hq = 4,
                          .hk = 2,
                          .d = d,
                          .dv = dv,
                          .lse_gap = 3,
                          .num_splits = 3,
                          .o_layout = {.order = Layout::Order::Bhsd, .gap = 5, .shift = 1}}}));
}

TEST_CASE("split: chosen by itself for one query row against 128k keys") {
  for (const Case &c : forEveryDtype({{.sq = 1, .sk = 131072, .hq = 1, .d = 64, .num_splits = 0}})) {
    Instance instance(c);
    const PlanPtr plan = makePlan(instance);
    // A GPU's kernel for few query rows divides the keys itself and needs no second step.
    const bool one_step = !Session::get().onCpu();
    CHECK((inspect(*plan).num_splits > 1) != one_step);
    CHECK(inspect(*plan).steps == (one_step ? 1 : 2));
    CHECK(flashplus_plan_workspace(plan.get()) > 0);
    check({c});
  }
}

TEST_CASE("split: not for one that fills the device, nor where it is forbidden") {
  for (Case c : {Case{.batch = 64, .sq = 64, .sk = 2048, .hq = 32, .hk = 1, .d = 8, .num_splits = 0},
                 Case{.sq = 1, .sk = 8192, .hq = 1, .d = 8, .num_splits = 1},
                 Case{.sq = 1, .sk = 8192, .hq = 1, .d = 8, .num_splits = 0, .batch_invariant = true}}) {
    Instance instance(c);
    const PlanPtr plan = makePlan(instance);
    CHECK_MESSAGE(inspect(*plan).num_splits == 1, c.text());
    CHECK(inspect(*plan).steps == 1);
    CHECK(flashplus_plan_workspace(plan.get()) == 0);
  }
}

TEST_SUITE_END();
