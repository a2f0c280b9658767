// SPDX-License-Identifier: BSD-3-Clause
// That the pairs chosen cover: counted again here, by trying every two values.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "tests/conformance/backward_problem.h"
#include "tests/conformance/pairs.h"
#include "tests/soak.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

std::vector<Row> product(const std::vector<int> &sizes) {
  std::vector<Row> rows = {{}};
  for (int size : sizes) {
    std::vector<Row> longer;
    for (const Row &row : rows)
      for (int value = 0; value < size; ++value) {
        longer.push_back(row);
        longer.back().push_back(std::to_string(value));
      }
    rows = std::move(longer);
  }
  return rows;
}

/// Whether some row of `few` has the values of `row` in both dimensions.
bool meet(const std::vector<Row> &few, const Row &row, size_t i, size_t j) {
  for (const Row &other : few)
    if (other[i] == row[i] && other[j] == row[j])
      return true;
  return false;
}

int pairsThatDoNotMeet(const std::vector<Row> &all, const std::vector<Row> &few) {
  int missing = 0;
  for (const Row &row : all)
    for (size_t i = 0; i < row.size(); ++i)
      for (size_t j = 0; j <= i; ++j)
        missing += !meet(few, row, i, j);
  return missing;
}

std::vector<Row> pick(const std::vector<Row> &rows, const std::vector<size_t> &indices) {
  std::vector<Row> few;
  for (size_t i : indices)
    few.push_back(rows[i]);
  return few;
}

} // namespace

TEST_CASE("pairs of a full product are covered by little more than the two longest dimensions need") {
  for (const std::vector<int> &sizes :
       {std::vector<int>{9}, {3, 4}, {2, 2, 2, 2, 2, 2}, {22, 12, 2}, {5, 4, 3, 3, 2}}) {
    const std::vector<Row> all = product(sizes), few = pick(all, PairLedger().choose(all));
    CHECK(pairsThatDoNotMeet(all, few) == 0);
    std::vector<int> sorted = sizes;
    std::sort(sorted.rbegin(), sorted.rend());
    const int needed = sorted.size() > 1 ? sorted[0] * sorted[1] : sorted[0];
    CHECK(int(few.size()) >= needed);
    CHECK(int(few.size()) <= needed + needed / 2 + 5);
  }
}

TEST_CASE("pairs of any lists are covered, over several calls, and the choice is always the same") {
  std::mt19937 random(7);
  for (int round = 0; round < 30; ++round) {
    std::vector<Row> all, few;
    PairLedger ledger, again;
    for (int call = 0; call < 4; ++call) {
      std::vector<Row> rows;
      for (int i = 0; i < 40; ++i) {
        Row row;
        for (unsigned dimension = 0; dimension < 6; ++dimension)
          row.push_back(std::to_string(random() % (dimension + 2)));
        rows.push_back(row);
      }
      const std::vector<size_t> indices = ledger.choose(rows);
      CHECK(std::is_sorted(indices.begin(), indices.end()));
      CHECK(indices == again.choose(rows));
      for (const Row &row : pick(rows, indices))
        few.push_back(row);
      all.insert(all.end(), rows.begin(), rows.end());
      CHECK(pairsThatDoNotMeet(all, few) == 0);
      CHECK(ledger.choose(rows).empty()); // nothing is run twice
    }
    CHECK(few.size() < all.size() * 3 / 4);
  }
}

TEST_CASE("every member of a case is a dimension") {
  const Case usual;
  std::vector<Case> changed;
  auto change = [&](auto set) {
    changed.push_back(usual);
    set(changed.back());
  };
  change([](Case &c) { c.dtype = DType::F16; });
  for (int64_t Case::*member :
       {&Case::batch, &Case::sq, &Case::sk, &Case::hq, &Case::hk, &Case::d, &Case::dv, &Case::tail_q,
        &Case::tail_k, &Case::max_q, &Case::max_k, &Case::lse_gap, &Case::first_batch})
    change([&](Case &c) { c.*member = 77; });
  for (auto member : {&Case::ragged_q, &Case::ragged_k})
    change([&](Case &c) { c.*member = {7}; });
  for (auto member : {&Case::used_q, &Case::used_k})
    change([&](Case &c) { c.*member = {7}; });
  for (int Case::*member : {&Case::window_left, &Case::window_right, &Case::num_splits})
    change([&](Case &c) { c.*member = 77; });
  for (float Case::*member : {&Case::softcap, &Case::lse_empty})
    change([&](Case &c) { c.*member = 77; });
  for (bool Case::*member : {&Case::causal, &Case::want_lse, &Case::batch_invariant, &Case::packed_qkv})
    change([&](Case &c) { c.*member = !(c.*member); });
  for (auto member : {&Case::q_layout, &Case::k_layout, &Case::v_layout, &Case::o_layout}) {
    change([&](Case &c) { (c.*member).order = Layout::Order::Sbhd; });
    change([&](Case &c) { (c.*member).gap = 1; });
    change([&](Case &c) { (c.*member).shift = 1; });
    change([&](Case &c) { (c.*member).broadcast = true; });
  }
  change([](Case &c) { c.scale = 0.5f; });
  change([](Case &c) { c.alibi = Alibi::PerHead; });
  change([](Case &c) { c.score = "s"; });
  change([](Case &c) { c.aux = {{"a", {1}}}; });
  change([](Case &c) { c.aux = {{"a", {1}, {0.5f}}}; });
  change([](Case &c) { c.aux = {{"a", {1}, {1.5f}}}; });
  change([](Case &c) { c.scalars = {{"w", 1.0f}}; });
  change([](Case &c) { c.fill = [](char, int64_t, int64_t, int64_t, int64_t) { return 0.0f; }; });
  change([](Case &c) { c.seed = 2; });
  changed.push_back(usual);
  for (size_t i = 0; i < changed.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      int differ = 0;
      const auto a = changed[i].fields(), b = changed[j].fields();
      for (size_t k = 0; k < a.size(); ++k)
        differ += a[k].value != b[k].value;
      CHECK_MESSAGE(differ > 0, changed[i].text() << " and " << changed[j].text());
    }
}

TEST_CASE("every member of a backward's case is a dimension") {
  std::vector<BackwardCase> changed(1);
  auto change = [&](auto set) { set(changed.emplace_back()); };
  change([](BackwardCase &c) { c.forward.sq = 77; });
  for (bool BackwardCase::*member : {&BackwardCase::dlse, &BackwardCase::delta, &BackwardCase::after_forward,
                                     &BackwardCase::infinite_lse, &BackwardCase::packed_dqkv})
    change([&](BackwardCase &c) { c.*member = true; });
  for (Layout BackwardCase::*member : {&BackwardCase::dout_layout, &BackwardCase::dq_layout,
                                       &BackwardCase::dk_layout, &BackwardCase::dv_layout}) {
    change([&](BackwardCase &c) { (c.*member).order = Layout::Order::Bhsd; });
    change([&](BackwardCase &c) { (c.*member).gap = 1; });
    change([&](BackwardCase &c) { (c.*member).shift = 1; });
    change([&](BackwardCase &c) { (c.*member).broadcast = true; });
  }
  std::set<std::string> texts;
  for (const BackwardCase &c : changed)
    texts.insert(c.text());
  CHECK(texts.size() == changed.size());
}

TEST_CASE("a soak is whole, a run of CI a twentieth") {
  using test::soakCount;
  CHECK(soakCount(/*everything=*/true, 60) == 60);
  CHECK(soakCount(false, 60) == 3);
  CHECK(soakCount(false, 61) == 4);
  CHECK(soakCount(false, 60, /*least=*/5) == 5);
  CHECK(soakCount(false, 3, 5) == 3);
  int chosen = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string text = "kernel tile_m=" + std::to_string(i);
    int shares = 0;
    for (uint64_t turn = 0; turn < 8; ++turn)
      shares += test::inShare(text, 8, turn);
    REQUIRE(shares == 1); // whole after all turns
    chosen += test::inShare(text, 8);
  }
  CHECK(chosen > 400);
  CHECK(chosen < 600);
}
