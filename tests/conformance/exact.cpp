// SPDX-License-Identifier: BSD-3-Clause
// Problems whose results are known without a reference: what random data hides (a swapped key, a key too many
// among many, a wrong row), what must be bit for bit, and numbers that are none.
#include "tests/conformance/check.h"

#include "reference/numeric.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// A small integer that tells where v[b, row, head, c] comes from; exact in every storage type.
float positionCode(int64_t b, int64_t row, int64_t head, int64_t c) {
  return float((b * 89 + row * 37 + head * 53 + c * 11 + row / 7 * c) % 241 - 120);
}

/// Calls body(b, row in the sequence, head, index of (row, head) in reference::Output).
template <class Body> void forRows(const Case &c, Body body) {
  for (int64_t b = 0; b < c.batches(); ++b)
    for (int64_t i = 0; i < c.lengthQ(b); ++i)
      for (int64_t h = 0; h < c.hq; ++h)
        body(b, i, h, size_t(((c.ragged() ? c.startQ(b) : b * c.sq) + i) * c.hq + h));
}

/// Masks and lengths for the exact problems.
std::vector<Case> variety() {
  std::vector<Case> cases;
  for (int splits : {1, 3}) {
    Case base = {.batch = 2, .hq = 4, .hk = 2, .d = 40, .dv = 24, .num_splits = splits};
    for (auto [sq, sk] : {std::pair<int64_t, int64_t>{1, 200}, {7, 65}, {97, 130}, {130, 50}})
      for (auto [left, right] : {std::pair<int, int>{-1, -1}, {-1, 0}, {9, 3}, {70, -1}, {-1, 6}}) {
        Case c = base;
        c.sq = sq;
        c.sk = sk;
        c.window_left = left;
        c.window_right = right;
        cases.push_back(c);
      }
    base.ragged_q = {3, 0, 97, 20};
    base.ragged_k = {64, 5, 130, 0};
    cases.push_back(base);
    base.causal = true;
    cases.push_back(base);
  }
  return forEveryDtype(cases);
}

double unitRoundoff(DType dtype) { return std::ldexp(1.0, -reference::precisionBits(dtype)); }

/// Relative error of the weight of a share: it is exp(lse of the share), and lse has been rounded, multiplied
/// by log2(e) and subtracted in fp32.
double shareRounding(const Case &c, double lse) {
  return c.num_splits == 1 || std::isinf(lse) ? 0 : 0x1p-22 * (1 + std::fabs(lse));
}

/// Key that row i is made to retrieve, among those it sees; -1: it sees none.
int64_t target(const Case &c, int64_t b, int64_t i, int64_t h) {
  int64_t first = -1, last = -1;
  for (int64_t j = 0; j < c.lengthK(b); ++j)
    if (c.sees(b, i, j)) {
      first = first < 0 ? j : first;
      last = j;
    }
  if (first < 0)
    return -1;
  // The ends of the interval are where masks go wrong.
  const int64_t n = last - first + 1;
  return i % 3 == 0 ? first : i % 3 == 1 ? last : first + (i * 31 + h * 7) % n;
}

/// Whether `got` is not `want` bit for bit. The one share that holds the key has a weight w that is divided
/// by itself, as w (1 / w): that is 1 to a rounding or two of fp32, which only fp32 shows.
bool differs(const Case &c, double got, double want) {
  if (c.dtype == DType::F32 && c.num_splits > 1)
    return !(std::fabs(got - want) <= std::fabs(want) * 0x1p-22);
  return got != want;
}

} // namespace

TEST_SUITE_BEGIN("exact");

TEST_CASE("exact: q = 0 gives the mean of the visible v, and lse = ln(visible keys)") {
  for (Case c : chosen(variety())) {
    c.fill = [](char tensor, int64_t b, int64_t row, int64_t head, int64_t column) {
      return tensor == 'q' ? 0.0f : tensor == 'k' ? float(row % 5 - 2) : positionCode(b, row, head, column);
    };
    const reference::Actual actual = run(c);
    double worst = 0, worst_lse = 0;
    forRows(c, [&](int64_t b, int64_t i, int64_t h, size_t at) {
      int64_t visible = 0;
      for (int64_t j = 0; j < c.lengthK(b); ++j)
        visible += c.sees(b, i, j);
      const double lse = visible ? std::log(double(visible)) : double(c.lse_empty);
      worst_lse = std::max(worst_lse, actual.lse[at] == lse ? 0 : std::fabs(actual.lse[at] - lse));
      for (int64_t column = 0; column < c.dimV(); ++column) {
        double sum = 0;
        for (int64_t j = 0; j < c.lengthK(b); ++j)
          if (c.sees(b, i, j))
            sum += double(positionCode(b, j, h / (c.hq / c.hk), column));
        const double mean = visible ? sum / double(visible) : 0;
        const double got = actual.o[at * size_t(c.dimV()) + size_t(column)];
        // P is 1 and the sums are integers: what rounds is the quotient (in fp32) and its storage.
        const double allowed =
            std::fabs(mean) * (unitRoundoff(c.dtype) * 1.0001 + 0x1p-21) + 120 * shareRounding(c, lse);
        worst = std::max(worst, std::isnan(got) ? kInf : std::fabs(got - mean) - allowed);
      }
    });
    CHECK_MESSAGE(worst <= 0, "o: " << c.text());
    CHECK_MESSAGE(worst_lse <= 0x1p-20, "lse: " << c.text()); // a few roundings of at most ln 200
  }
}

TEST_CASE("exact: each row retrieves one key, bit for bit") {
  for (Case c : chosen(variety())) {
    // A key's number in binary, as 12 signs repeated three times: another key's score is lower by 6 at least.
    // Times the scale, its probability is 0 in fp32.
    const auto code = [](int64_t key, int64_t column) {
      return column >= 36 ? 0.0f : key >> column % 12 & 1 ? 1.0f : -1.0f;
    };
    c.scale = 20.0f;
    const Case shape = c;
    c.fill = [&](char tensor, int64_t b, int64_t row, int64_t head, int64_t column) {
      if (tensor == 'v')
        return positionCode(b, row, head, column);
      if (tensor == 'k')
        return code(row, column);
      const int64_t key = target(shape, b, row, head);
      return key < 0 ? 1.0f : code(key, column);
    };
    const reference::Actual actual = run(c);
    int64_t wrong = 0, wrong_lse = 0;
    forRows(c, [&](int64_t b, int64_t i, int64_t h, size_t at) {
      const int64_t key = target(c, b, i, h);
      for (int64_t column = 0; column < c.dimV(); ++column)
        wrong += differs(c, actual.o[at * size_t(c.dimV()) + size_t(column)],
                         key < 0 ? 0.0 : double(positionCode(b, key, h / (c.hq / c.hk), column)));
      // 36 equal signs times 20; log2(e) and ln(2) are applied in between.
      wrong_lse +=
          key < 0 ? actual.lse[at] != double(c.lse_empty) : std::fabs(actual.lse[at] - 720) > 720 * 0x1p-21;
    });
    CHECK_MESSAGE(wrong == 0, "elements of o: " << c.text());
    CHECK_MESSAGE(wrong_lse == 0, "rows of lse: " << c.text());
  }
}

TEST_CASE("exact: a window of one key copies v, whatever q and k are") {
  for (int splits : {1, 4}) {
    std::vector<Case> cases =
        forEveryDtype({{.batch = 2, .sq = 97, .sk = 97, .hq = 4, .hk = 2},
                       {.batch = 2, .sq = 97, .sk = 200, .hq = 4, .hk = 2},
                       {.batch = 2, .sq = 97, .sk = 60, .hq = 4, .hk = 2, .d = 33, .dv = 100}});
    for (Case &c : cases) {
      c.window_left = c.window_right = 0;
      c.num_splits = splits;
    }
    for (Case c : chosen(cases)) {
      c.fill = [](char tensor, int64_t b, int64_t row, int64_t head, int64_t column) {
        return tensor == 'v' ? positionCode(b, row, head, column)
                             : float((row * 7 + head + column * 3) % 5 - 2) / 4;
      };
      const reference::Actual actual = run(c);
      int64_t wrong = 0;
      forRows(c, [&](int64_t b, int64_t i, int64_t h, size_t at) {
        const int64_t key = i + c.sk - c.sq;
        for (int64_t column = 0; column < c.dimV(); ++column)
          wrong += differs(c, actual.o[at * size_t(c.dimV()) + size_t(column)],
                           key < 0 ? 0.0 : double(positionCode(b, key, h / 2, column)));
      });
      CHECK_MESSAGE(wrong == 0, "elements of o: " << c.text());
    }
  }
}

TEST_CASE("exact: NaN and infinity go where the plain mathematics takes them") {
  // One bad element of one tensor. Rows that see it (or own it, for q) follow fp64; the others are as if it
  // were not there, but for a bad v in a key that a row does not see, where 0 * NaN is allowed as in a plain
  // P V.
  struct Bad {
    Case base;
    char tensor;
    float value;
  };
  std::vector<Bad> all;
  std::vector<Row> rows;
  for (const Case &base :
       forEveryDtype({{.sq = 97, .sk = 130, .hq = 2, .hk = 1, .d = 40, .causal = true},
                      {.sq = 7, .sk = 130, .hq = 2, .hk = 1, .d = 40, .causal = true},
                      {.sq = 1, .sk = 130, .hq = 2, .hk = 1, .d = 40},
                      // A GPU's kernel for few rows: the bad key is the only one of a share, or one of many.
                      {.sq = 1, .sk = 129, .hq = 2, .hk = 1, .d = 40, .num_splits = 0},
                      {.sq = 3, .sk = 300, .hq = 2, .hk = 1, .d = 40, .causal = true, .num_splits = 0},
                      {.sq = 1, .sk = 130, .hq = 2, .hk = 1, .d = 40, .window_left = 0, .window_right = 0,
                       .num_splits = 0},
                      {.sq = 7, .sk = 300, .hq = 2, .hk = 1, .d = 40, .causal = true, .num_splits = 3}}))
    for (char tensor : {'q', 'k', 'v'})
      for (float value : {kNaN, kInf, -kInf}) {
        all.push_back({base, tensor, value});
        rows.push_back(rowOf(base));
        rows.back().insert(rows.back().end(), {std::string(1, tensor), std::to_string(value)});
      }
  for (size_t which : chosenOf(rows)) {
    const Case &base = all[which].base;
    const char bad_tensor = all[which].tensor;
    const float bad = all[which].value;
    Case c = base, clean = base;
    const int64_t bad_row = bad_tensor == 'q' ? c.sq / 2 : c.sk - c.sq / 2 - 1, bad_column = 3;
    const auto plain = [](char tensor, int64_t, int64_t row, int64_t head, int64_t column) {
      return float((row * 29 + head * 17 + column * 13 + tensor * row) % 23 - 11) / 8;
    };
    clean.fill = plain;
    c.fill = [=](char tensor, int64_t b, int64_t row, int64_t head, int64_t column) {
      const bool here = tensor == bad_tensor && row == bad_row && head == 0 && column == bad_column;
      return here ? bad : plain(tensor, b, row, head, column);
    };
    CAPTURE(bad_tensor);
    CAPTURE(bad);
    const reference::Actual actual = run(c), without = run(clean);
    const Instance instance(c);
    const reference::Output expected = reference::attentionFp64(instance.reference());
    int64_t wrong = 0;
    auto agrees = [&](double got, double want) {
      if (std::isnan(want) || std::isinf(want))
        return std::isnan(want) ? std::isnan(got) : got == want;
      return std::fabs(got - want) <= 16 * unitRoundoff(c.dtype) * (1 + std::fabs(want)) + 1e-5;
    };
    forRows(c, [&](int64_t b, int64_t i, int64_t h, size_t at) {
      const bool owns = bad_tensor == 'q' ? i == bad_row && h == 0 : c.sees(b, i, bad_row);
      for (int64_t column = 0; column < c.dimV(); ++column) {
        const size_t e = at * size_t(c.dimV()) + size_t(column);
        if (owns)
          wrong += !agrees(actual.o[e], expected.o[e]);
        else
          wrong += actual.o[e] != without.o[e] &&
                   !(bad_tensor == 'v' && column == bad_column && std::isnan(actual.o[e]));
      }
      wrong += owns ? !agrees(actual.lse[at], expected.lse[at]) : actual.lse[at] != without.lse[at];
    });
    CHECK_MESSAGE(wrong == 0, c.text());
  }
}

TEST_CASE("exact: the largest and smallest numbers of the storage type") {
  for (Case c :
       forEveryDtype({{.sq = 20, .sk = 70, .d = 32}, {.sq = 97, .sk = 130, .d = 32, .causal = true}})) {
    // v near the end of fp16's range: o is a mean and must not overflow on the way. Sums of v are exact in
    // fp32. Subnormal q: scores near 0.
    const float large = c.dtype == DType::F16 ? 65504.0f : 0x1p100f,
                small = c.dtype == DType::F16 ? 0x1p-24f : 0x1p-130f;
    c.fill = [=](char tensor, int64_t, int64_t row, int64_t, int64_t column) {
      return tensor == 'v'   ? large
             : tensor == 'q' ? small * float(1 + column % 3)
                             : float((row + column) % 3 - 1);
    };
    const reference::Actual actual = run(c);
    int64_t wrong = 0;
    for (double x : actual.o)
      wrong += !(std::fabs(x - double(reference::roundToStorage(c.dtype, large))) <=
                 double(large) * (2 * unitRoundoff(c.dtype) + 0x1p-20));
    CHECK_MESSAGE(wrong == 0, c.text());
  }
}

TEST_SUITE_END();
