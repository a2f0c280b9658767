// SPDX-License-Identifier: BSD-3-Clause
// How the tensors of a backward lie in memory: orders, gaps, alignment, shared memory, broadcast inputs; what
// is given.
#include "tests/conformance/backward_check.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

constexpr Layout::Order kOrders[] = {Layout::Order::Bshd, Layout::Order::Bhsd, Layout::Order::Sbhd};

BackwardCase laidOut(BackwardCase c, Layout layout) {
  Case &f = c.forward;
  for (Layout *l : {&f.q_layout, &f.k_layout, &f.v_layout, &f.o_layout, &c.dout_layout, &c.dq_layout,
                    &c.dk_layout, &c.dv_layout})
    *l = layout;
  return c;
}

const BackwardCase kBase = {
    .forward = {.batch = 2, .sq = 33, .sk = 70, .hq = 4, .hk = 2, .d = 40, .causal = true}};

} // namespace

TEST_SUITE_BEGIN("backward_layout");

TEST_CASE("backward layout: every order of dimensions, with gaps of 16 bytes and of one element") {
  std::vector<BackwardCase> cases;
  for (Layout::Order order : kOrders)
    for (int64_t gap : {0, 8, 1})
      for (int64_t shift : {0, 8, 1})
        cases.push_back(laidOut(kBase, {.order = order, .gap = gap, .shift = shift}));
  for (BackwardCase &c : cases) {
    c.forward.lse_gap = 3;
    c.dlse = c.delta = true;
  }
  checkBackward(forEveryDtype(cases));
}

TEST_CASE("backward layout: one tensor alone is aligned to an element only, or has another order") {
  std::vector<BackwardCase> cases;
  for (Layout layout : {Layout{.shift = 1}, Layout{.order = Layout::Order::Bhsd, .gap = 3}}) {
    for (Layout Case::*tensor : {&Case::q_layout, &Case::k_layout, &Case::v_layout, &Case::o_layout}) {
      cases.push_back(kBase);
      cases.back().forward.*tensor = layout;
    }
    for (Layout BackwardCase::*tensor : {&BackwardCase::dout_layout, &BackwardCase::dq_layout,
                                         &BackwardCase::dk_layout, &BackwardCase::dv_layout}) {
      cases.push_back(kBase);
      cases.back().*tensor = layout;
    }
  }
  checkBackward(forEveryDtype(cases));
}

TEST_CASE("backward layout: packed qkv and dqkv") {
  std::vector<BackwardCase> cases;
  for (Layout layout : {Layout{}, Layout{.gap = 8}, Layout{.order = Layout::Order::Sbhd, .shift = 1}}) {
    BackwardCase c = {.forward = {.batch = 2, .sq = 65, .sk = 65, .hq = 4, .hk = 2, .d = 32, .causal = true}};
    c.forward.packed_qkv = c.packed_dqkv = true;
    c.forward.q_layout = c.dq_layout = layout;
    cases.push_back(c);
    c.forward.ragged_q = c.forward.ragged_k = {7, 0, 65, 20};
    c.forward.tail_q = c.forward.tail_k = 3;
    cases.push_back(c);
  }
  checkBackward(forEveryDtype(cases));
}

TEST_CASE("backward layout: inputs of stride 0 over the batch") {
  std::vector<BackwardCase> cases;
  for (int which = 0; which < 3; ++which) {
    BackwardCase c = kBase;
    (which == 0 ? c.forward.k_layout : which == 1 ? c.forward.q_layout : c.dout_layout).broadcast = true;
    if (which == 0)
      c.forward.v_layout.broadcast = true;
    cases.push_back(c);
  }
  checkBackward(forEveryDtype(cases));
}

TEST_CASE("backward layout: dlse and delta, given or not") {
  std::vector<BackwardCase> cases;
  for (int given = 0; given < 4; ++given)
    for (auto [sq, sk] : {std::pair<int64_t, int64_t>{70, 33}, {33, 70}}) {
      BackwardCase c = kBase;
      c.forward.sq = sq;
      c.forward.sk = sk;
      c.forward.lse_gap = 3;
      c.dlse = given & 1;
      c.delta = given & 2;
      cases.push_back(c);
      c.forward.ragged_q = {sq, 5, 0};
      c.forward.ragged_k = {sk, 0, 5};
      cases.push_back(c);
    }
  checkBackward(forEveryDtype(cases));
}

TEST_CASE("backward layout: after the device's own forward") {
  std::vector<BackwardCase> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{97, 97}, {130, 65}, {1, 300}})
    for (bool causal : {false, true})
      cases.push_back({.forward = {.batch = 2, .sq = sq, .sk = sk, .hq = 4, .hk = 2, .causal = causal},
                       .dlse = causal,
                       .delta = true,
                       .after_forward = true});
  cases.push_back({.forward = {.hq = 4, .hk = 2, .ragged_q = {3, 0, 70}, .ragged_k = {64, 5, 0}, .tail_q = 3},
                   .after_forward = true});
  checkBackward(forEveryDtype(cases));
}

TEST_SUITE_END();
