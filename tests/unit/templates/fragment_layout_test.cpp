// SPDX-License-Identifier: BSD-3-Clause
// FragmentLayout against the PTX ISA's definitions, over all 32 lanes and along both axes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "templates/common/fragment_layout.h"

#include <doctest/doctest.h>
#include <map>
#include <set>
#include <utility>

using namespace flashplus;

namespace {

constexpr Axis kAxes[] = {Axis::Rows, Axis::Columns};
using Place = std::pair<int, int>; // row, column

/// Where the layout says that value `x` of a lane lies.
Place placeOf(const FragmentLayout &f, int lane, int x) {
  auto along = [&](Axis axis) {
    return FragmentLayout::firstOfLane(axis, lane) + FragmentLayout::offset(axis, f.lineOf(axis, x));
  };
  return {along(Axis::Rows), along(Axis::Columns)};
}

/// Accumulator c_i of one mma.m16n8k16: PTX ISA, "row = groupID for c0, c1, groupID + 8 for c2, c3;
/// col = (threadID_in_group * 2) + (i & 1)".
Place accumulatorOfMma(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}

/// Accumulator d_i of wgmma.m64nNk16 as warp 0 of the warpgroup has it: figure "WGMMA .m64nNk16 register
/// fragment layout for accumulator matrix D".
Place accumulatorOfWgmma(int lane, int i) {
  return {lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2};
}

/// Element a_i of the A operand: "row = groupID for i in 0, 1, 4, 5, else groupID + 8;
/// col = (threadID_in_group * 2) + (i & 1), and 8 more for i >= 4".
Place operandOfMma(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  const bool upper = i == 0 || i == 1 || i == 4 || i == 5;
  return {upper ? group : group + 8, in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}

} // namespace

TEST_CASE("values lie where mma.sync and wgmma put them") {
  const FragmentLayout sm80{2, 6}, sm90{1, 16};
  for (int lane = 0; lane < 32; ++lane) {
    for (int mf = 0; mf < sm80.row_blocks; ++mf)
      for (int block = 0; block < sm80.column_blocks; ++block)
        for (int i = 0; i < 4; ++i) {
          const auto [row, column] = accumulatorOfMma(lane, i);
          CHECK(placeOf(sm80, lane, sm80.block(mf, block) + i) == Place{16 * mf + row, 8 * block + column});
        }
    for (int x = 0; x < sm90.size(); ++x)
      CHECK(placeOf(sm90, lane, x) == accumulatorOfWgmma(lane, x));
  }
}

TEST_CASE("lanes hold every element once") {
  const FragmentLayout f{2, 3};
  std::set<Place> seen;
  for (int lane = 0; lane < 32; ++lane)
    for (int x = 0; x < f.size(); ++x)
      CHECK(seen.insert(placeOf(f, lane, x)).second);
  CHECK(seen.size() == size_t(32 * 24));
  CHECK(*seen.rbegin() == Place{31, 23});
}

TEST_CASE("lines name a thread's values along either axis") {
  const FragmentLayout f{2, 3};
  for (Axis axis : kAxes) {
    std::set<int> seen;
    for (int line = 0; line < f.count(axis); ++line)
      for (int i = 0; i < f.count(across(axis)); ++i) {
        const int x = f.at(axis, line, i);
        CHECK(seen.insert(x).second);
        CHECK(f.lineOf(axis, x) == line);
        CHECK(f.lineOf(across(axis), x) == i);
      }
    CHECK(seen.size() == size_t(f.size()));
  }
}

TEST_CASE("a butterfly over the lanes of a line reaches the whole line and nothing else") {
  const FragmentLayout f{2, 3};
  for (Axis axis : kAxes)
    for (int line = 0; line < f.count(axis); ++line) {
      std::map<int, std::set<Place>> held; // what a lane's value was made of
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < f.count(across(axis)); ++i)
          held[lane].insert(placeOf(f, lane, f.at(axis, line, i)));
      for (int lanes : FragmentLayout::lanesOfLine(axis)) {
        const auto before = held;
        for (int lane = 0; lane < 32; ++lane)
          held[lane].insert(before.at(lane ^ lanes).begin(), before.at(lane ^ lanes).end());
      }
      const bool rows = axis == Axis::Rows;
      for (int lane = 0; lane < 32; ++lane) {
        const int at = FragmentLayout::firstOfLane(axis, lane) + FragmentLayout::offset(axis, line);
        std::set<Place> whole;
        for (int i = 0; i < (rows ? 8 * f.column_blocks : 16 * f.row_blocks); ++i)
          whole.insert(rows ? Place{at, i} : Place{i, at});
        CHECK(held[lane] == whole);
      }
    }
}

TEST_CASE("accumulators are the next product's A operand") {
  const FragmentLayout f{2, 6};
  for (int lane = 0; lane < 32; ++lane)
    for (int row_block = 0; row_block < f.row_blocks; ++row_block)
      for (int step = 0; step < f.column_blocks / 2; ++step)
        for (int i = 0; i < 8; ++i) {
          const auto [row, column] = operandOfMma(lane, i);
          const int x = f.operandA(row_block, step, i / 2)[size_t(i % 2)];
          CHECK(placeOf(f, lane, x) == Place{16 * row_block + row, 16 * step + column});
        }
}
