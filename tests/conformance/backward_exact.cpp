// SPDX-License-Identifier: BSD-3-Clause
// Backwards whose gradients are known without a reference: what random data hides, such as a swapped key, a
// row of another head, or a head of a group that is left out.
#include "tests/conformance/backward_check.h"

#include "reference/numeric.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// A small integer that tells where an element comes from, in [-half, half].
float code(int64_t b, int64_t row, int64_t head, int64_t c, int64_t half) {
  return float((b * 89 + row * 37 + head * 53 + c * 11 + row / 7 * c) % (2 * half + 1) - half);
}

double unitRoundoff(DType dtype) { return std::ldexp(1.0, -reference::precisionBits(dtype)); }

/// Lengths and heads, dense and packed; dlse is given for every other one and for the packed ones.
std::vector<BackwardCase> variety(const Case &base) {
  std::vector<BackwardCase> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{97, 97}, {65, 130}, {130, 50}, {1, 20}}) {
    Case c = base;
    c.sq = sq;
    c.sk = sk;
    cases.push_back({.forward = c, .dlse = cases.size() % 2 == 1});
  }
  Case c = base;
  c.ragged_q = {3, 0, 97, 20};
  c.ragged_k = {64, 5, 130, 0};
  for (bool dlse : {false, true})
    cases.push_back({.forward = c, .dlse = dlse});
  return forEveryDtype(cases);
}

/// Key that row i of head h retrieves with probability 1; -1: none.
using Target = std::function<int64_t(const Case &c, int64_t b, int64_t i, int64_t h)>;

/// What gradients are then: dv of a key the sum of dout over what retrieves it; of dS only dlse remains.
void checkRetrieval(const BackwardCase &backward, const Target &target, double slack) {
  const Case &c = backward.forward;
  const auto actual = runBackwardCase(backward);
  if (!actual)
    return;
  const int64_t rows_q = c.ragged() ? c.rowsQ() : c.batch * c.sq,
                rows_k = c.ragged() ? c.rowsK() : c.batch * c.sk;
  const int64_t group = c.hq / c.hk, dv = c.dimV();
  reference::Gradients want, size;
  for (reference::Gradients *g : {&want, &size}) {
    g->dq.assign(size_t(rows_q * c.hq * c.d), 0);
    g->dk.assign(size_t(rows_k * c.hk * c.d), 0);
    g->dv.assign(size_t(rows_k * c.hk * dv), 0);
  }
  auto add = [](std::vector<double> &sum, std::vector<double> &sizes, int64_t at, double x) {
    sum[size_t(at)] += x;
    sizes[size_t(at)] += std::fabs(x);
  };
  for (int64_t b = 0; b < c.batches(); ++b)
    for (int64_t i = 0; i < c.lengthQ(b); ++i)
      for (int64_t h = 0; h < c.hq; ++h) {
        const int64_t j = target(c, b, i, h), hk = h / group;
        if (j < 0)
          continue;
        const int64_t row = ((c.ragged() ? c.startQ(b) : b * c.sq) + i) * c.hq + h;
        const int64_t key = ((c.ragged() ? c.startK(b) : b * c.sk) + j) * c.hk + hk;
        // With the signs of q k: dS = -P (delta's dlse) = dlse P.
        const double e = backward.dlse ? double(c.fill('e', b, i, h, 0)) : 0;
        for (int64_t x = 0; x < dv; ++x)
          add(want.dv, size.dv, key * dv + x, double(c.fill('g', b, i, h, x)));
        for (int64_t x = 0; x < c.d; ++x) {
          add(want.dq, size.dq, row * c.d + x,
              double(c.softmaxScale()) * e * double(c.fill('k', b, j, hk, x)));
          add(want.dk, size.dk, key * c.d + x,
              double(c.softmaxScale()) * e * double(c.fill('q', b, i, h, x)));
        }
      }
  auto wrong = [&](const std::vector<double> &got, const std::vector<double> &expected,
                   const std::vector<double> &sizes) {
    int64_t count = got.size() != expected.size();
    for (size_t at = 0; at < expected.size() && at < got.size(); ++at)
      count += !(std::fabs(got[at] - expected[at]) <=
                 std::fabs(expected[at]) * unitRoundoff(c.dtype) + sizes[at] * (0x1p-16 + slack) + slack);
    return count;
  };
  CHECK_MESSAGE(wrong(actual->dv, want.dv, size.dv) == 0, "elements of dv: " << backward.text());
  CHECK_MESSAGE(wrong(actual->dq, want.dq, size.dq) == 0, "elements of dq: " << backward.text());
  CHECK_MESSAGE(wrong(actual->dk, want.dk, size.dk) == 0, "elements of dk: " << backward.text());
}

} // namespace

TEST_SUITE_BEGIN("backward_exact");

TEST_CASE("backward exact: a window of one key: dv is dout, dq and dk are dlse alone") {
  Case base = {
      .batch = 2, .hq = 4, .hk = 2, .d = 40, .dv = 24, .window_left = 0, .window_right = 0, .scale = 0.25f};
  base.fill = [](char tensor, int64_t b, int64_t row, int64_t head, int64_t c) {
    return tensor == 'v'   ? code(b, row, head, c, 60)
           : tensor == 'g' ? code(b, row, head, c, 15)
                           : code(b, row, head + tensor, c, 2);
  };
  for (const BackwardCase &c : chosen(variety(base)))
    checkRetrieval(
        c,
        [](const Case &p, int64_t b, int64_t i, int64_t) {
          const int64_t j = i + p.lengthK(b) - p.lengthQ(b);
          return j >= 0 && j < p.lengthK(b) ? j : -1;
        },
        0);
}

TEST_CASE("backward exact: each row retrieves one key of many") {
  // A key's number in binary, as signs: another key's score is lower by 24 at least, its probability 4e-11.
  const auto signs = [](int64_t key, int64_t c) { return c >= 36 ? 0.0f : key >> c % 12 & 1 ? 1.0f : -1.0f; };
  const Target target = [](const Case &c, int64_t b, int64_t i, int64_t h) {
    const auto [first, last] = visibleKeys(c, b, i);
    // The ends of the interval are where masks go wrong.
    return first > last ? -1
           : i % 3 == 0 ? first
           : i % 3 == 1 ? last
                        : first + (i * 31 + h * 7) % (last - first + 1);
  };
  for (auto [left, right] : {std::pair<int, int>{-1, -1}, {-1, 0}, {9, 3}, {70, -1}}) {
    const Case base = {.batch = 2,
                       .hq = 4,
                       .hk = 2,
                       .d = 40,
                       .dv = 24,
                       .window_left = left,
                       .window_right = right,
                       .scale = 4.0f};
    for (BackwardCase c : chosen(variety(base))) {
      const Case shape = c.forward;
      c.forward.fill = [=](char tensor, int64_t b, int64_t row, int64_t head, int64_t column) {
        if (tensor == 'q') {
          const int64_t key = target(shape, b, row, head);
          return key < 0 ? 1.0f : signs(key, column);
        }
        return tensor == 'k'   ? signs(row, column)
               : tensor == 'v' ? code(b, row, head, column, 60)
                               : code(b, row, head, column, tensor == 'g' ? 15 : 2);
      };
      checkRetrieval(c, target, 0x1p-10);
    }
  }
}

TEST_CASE("backward exact: dout = 0 gives zeros, whatever the rest") {
  Case base = {.batch = 2, .sq = 97, .sk = 70, .hq = 4, .hk = 2, .d = 40};
  base.fill = [](char tensor, int64_t b, int64_t row, int64_t head, int64_t c) {
    return tensor == 'g' ? 0.0f : code(b, row, head, c, 7) / 7;
  };
  std::vector<BackwardCase> cases;
  for (bool causal : {false, true}) {
    base.causal = causal;
    cases.push_back({.forward = base});
  }
  for (const BackwardCase &c : chosen(forEveryDtype(cases))) {
    const auto actual = runBackwardCase(c);
    REQUIRE(actual);
    for (auto [name, values] : {std::pair{"dq", &actual->dq}, {"dk", &actual->dk}, {"dv", &actual->dv}})
      CHECK_MESSAGE(std::all_of(values->begin(), values->end(), [](double x) { return x == 0; }),
                    name << ": " << c.text());
  }
}

TEST_CASE("backward exact: q = 0 and one element of dout is 1") {
  // P = 1 / 64. Of dv only column 5 is there, of dq only one row: scale / 64 sum_j (v_j - mean) k_j. dk is
  // q's: 0.
  constexpr int64_t kRow = 20, kHead = 2, kColumn = 5;
  Case base = {.sq = 33, .sk = 64, .hq = 4, .hk = 2, .d = 24, .scale = 0.25f};
  base.fill = [](char tensor, int64_t b, int64_t row, int64_t head, int64_t c) {
    if (tensor == 'g')
      return row == kRow && head == kHead && c == kColumn ? 1.0f : 0.0f;
    return tensor == 'q' ? 0.0f : code(b, row, head, c, tensor == 'k' ? 3 : 60);
  };
  for (const BackwardCase &c : chosen(forEveryDtype({BackwardCase{.forward = base}}))) {
    const auto actual = runBackwardCase(c);
    REQUIRE(actual);
    const Case &p = c.forward;
    const int64_t hk = kHead / 2;
    int64_t wrong_v = 0, wrong_k = 0, wrong_q = 0;
    for (int64_t j = 0; j < p.sk; ++j)
      for (int64_t h = 0; h < p.hk; ++h)
        for (int64_t x = 0; x < p.d; ++x) {
          const double got = actual->dv[size_t((j * p.hk + h) * p.d + x)];
          const double want = h == hk && x == kColumn ? 1.0 / 64 : 0;
          wrong_v += p.dtype == DType::F32 ? !(std::fabs(got - want) <= want * 0x1p-20) : got != want;
          wrong_k += actual->dk[size_t((j * p.hk + h) * p.d + x)] != 0;
        }
    double mean = 0;
    for (int64_t j = 0; j < p.sk; ++j)
      mean += double(p.fill('v', 0, j, hk, kColumn)) / 64;
    const double o =
        double(reference::roundToStorage(p.dtype, float(mean))); // delta comes from what o was stored as
    for (int64_t i = 0; i < p.sq; ++i)
      for (int64_t h = 0; h < p.hq; ++h)
        for (int64_t x = 0; x < p.d; ++x) {
          double want = 0, size = 0;
          for (int64_t j = 0; j < p.sk && i == kRow && h == kHead; ++j) {
            const double term =
                0.25 / 64 * (double(p.fill('v', 0, j, hk, kColumn)) - o) * double(p.fill('k', 0, j, hk, x));
            want += term;
            size += std::fabs(term);
          }
          const double got = actual->dq[size_t((i * p.hq + h) * p.d + x)];
          wrong_q += !(std::fabs(got - want) <= (std::fabs(want) + size) * (unitRoundoff(p.dtype) + 0x1p-20));
        }
    CHECK_MESSAGE(wrong_v == 0, "elements of dv: " << c.text());
    CHECK_MESSAGE(wrong_k == 0, "elements of dk: " << c.text());
    CHECK_MESSAGE(wrong_q == 0, "elements of dq: " << c.text());
  }
}

TEST_SUITE_END();
