// SPDX-License-Identifier: BSD-3-Clause
// Where tensors lie: any strides whose last is 1, aligned or not.
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;
using Order = Layout::Order;

namespace {

std::vector<Case> everyHeight(Case c) {
  std::vector<Case> cases;
  for (int64_t sq : {1, 7, 97}) {
    c.sq = sq;
    cases.push_back(c);
  }
  return cases;
}

Case withLayout(const Layout &l, int64_t d = 64) {
  return {.batch = 2,
          .sk = 70,
          .hq = 4,
          .hk = 2,
          .d = d,
          .q_layout = l,
          .k_layout = l,
          .v_layout = l,
          .o_layout = l};
}

int64_t alignmentOf(const Case &c) { return inspect(*makePlan(Instance(c))).alignment; }

} // namespace

TEST_SUITE_BEGIN("layout");

TEST_CASE("layout: any order of the dimensions") {
  for (Order order : {Order::Bshd, Order::Bhsd, Order::Sbhd})
    for (int64_t gap : {0, 8}) {
      const Case c = withLayout({.order = order, .gap = gap});
      CHECK(alignmentOf(c) == 16);
      check(forEveryDtype(everyHeight(c)));
    }
  Case mixed = withLayout({});
  mixed.q_layout.order = Order::Bhsd;
  mixed.k_layout.order = Order::Sbhd;
  mixed.v_layout = {.order = Order::Bhsd, .gap = 16};
  mixed.o_layout = {.order = Order::Sbhd, .gap = 24};
  check(forEveryDtype(everyHeight(mixed)));
}

TEST_CASE("layout: rows and bases that are aligned to an element only") {
  for (const Layout &l :
       {Layout{.gap = 1}, Layout{.shift = 1}, Layout{.gap = 3, .shift = 5},
        Layout{.order = Order::Bhsd, .gap = 2, .shift = 2}, Layout{.order = Order::Sbhd, .shift = 3}})
    for (int64_t d : {64, 80}) {
      const Case c = withLayout(l, d);
      CHECK(alignmentOf(c) == dtypeBytes(c.dtype));
      check(forEveryDtype(everyHeight(c)));
    }
  // One tensor is enough.
  for (int which = 0; which < 4; ++which) {
    Case c = withLayout({});
    (which == 0 ? c.q_layout : which == 1 ? c.k_layout : which == 2 ? c.v_layout : c.o_layout) = {.shift = 1};
    CHECK(alignmentOf(c) == dtypeBytes(c.dtype));
    check(forEveryDtype(everyHeight(c)));
  }
}

TEST_CASE("layout: packed qkv, read where it lies") {
  for (const Layout &l : {Layout{}, Layout{.order = Order::Bhsd}, Layout{.gap = 8}, Layout{.shift = 1}})
    for (auto [hq, hk] : {std::pair<int64_t, int64_t>{3, 3}, {4, 2}})
      check(forEveryDtype({{.batch = 2,
                            .sq = 70,
                            .sk = 70,
                            .hq = hq,
                            .hk = hk,
                            .d = 48,
                            .causal = true,
                            .q_layout = l,
                            .packed_qkv = true}}));
  check(forEveryDtype({{.hq = 4,
                        .hk = 2,
                        .d = 48,
                        .ragged_q = {5, 0, 70},
                        .ragged_k = {5, 0, 70},
                        .causal = true,
                        .packed_qkv = true}}));
}

TEST_CASE("layout: one k and v for the whole batch") {
  Case c = {.batch = 3, .sk = 70, .hq = 4, .hk = 2};
  c.k_layout.broadcast = c.v_layout.broadcast = true;
  check(forEveryDtype(everyHeight(c)));
  c.q_layout.broadcast = true;
  check(forEveryDtype(everyHeight(c)));
}

TEST_CASE("layout: packed sequences with heads outermost") {
  for (const Layout &l : {Layout{.order = Order::Bhsd}, Layout{.order = Order::Bhsd, .gap = 1, .shift = 3}}) {
    Case c = withLayout(l);
    c.ragged_q = {3, 0, 97, 5};
    c.ragged_k = {30, 64, 65, 0};
    check(forEveryDtype({c}));
  }
}

TEST_CASE("layout: lse with heads apart") {
  check(forEveryDtype({{.batch = 2, .sq = 97, .sk = 30, .lse_gap = 13},
                       {.batch = 2, .sq = 1, .sk = 30, .lse_gap = 1},
                       {.ragged_q = {9, 0, 70}, .ragged_k = {30, 4, 5}, .lse_gap = 7},
                       {.batch = 2, .sq = 7, .sk = 200, .lse_gap = 5, .num_splits = 2}}));
}

TEST_CASE("layout: a plan for unaligned rows runs aligned ones too") {
  for (const Case &c : forEveryDtype({withLayout({.gap = 8})})) {
    Case unaligned = c;
    unaligned.q_layout.gap = 1;
    const PlanPtr plan = makePlan(Instance(unaligned));
    Instance aligned(c);
    const Outputs outputs = runPlan(aligned, *plan);
    CHECK(reference::compare(aligned.reference(), aligned.unpack(outputs.o, outputs.lse)).good());
  }
}

TEST_SUITE_END();
