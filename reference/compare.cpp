// SPDX-License-Identifier: BSD-3-Clause
#include "reference/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace flashplus::reference {
namespace {

constexpr double kEpsilon = 0x1p-24; // fp32 unit roundoff
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// |a - b|; 0 for the same infinity, infinity where only one is infinite or any is NaN.
double distance(double a, double b) {
  if (a == b)
    return 0;
  const double d = std::fabs(a - b);
  return std::isnan(d) ? kInfinity : d;
}

struct Errors {
  double o = 0, lse = 0, absolute = 0;
  int64_t rows = 0, row = 0, head = 0;
};

Errors measure(const Problem &p, const Output &exact, const std::vector<double> &o,
               const std::vector<double> &lse) {
  Errors e;
  for (int64_t row = 0; row < p.rowsQ(); ++row) {
    if (!exact.valid[size_t(row)])
      continue;
    for (int64_t h = 0; h < p.heads_q; ++h) {
      const size_t index = size_t(row * p.heads_q + h), at = index * size_t(p.head_dim_v);
      double error = 0, largest = 0;
      for (int64_t d = 0; d < p.head_dim_v; ++d) {
        error = std::max(error, distance(o[at + size_t(d)], exact.o[at + size_t(d)]));
        largest = std::max(largest, std::fabs(exact.o[at + size_t(d)]));
      }
      e.absolute = std::max(e.absolute, error);
      // A row of zeros (no key, or v = 0) has no rounding at all.
      const double relative = error == 0                           ? 0
                              : largest == 0 || error == kInfinity ? kInfinity
                                                                   : error / largest;
      if (relative > e.o) {
        e.o = relative;
        e.row = row;
        e.head = h;
      }
      if (!lse.empty())
        e.lse = std::max(e.lse, distance(lse[index], exact.lse[index]));
      ++e.rows;
    }
  }
  return e;
}

} // namespace

Comparison compare(const Problem &p, const Actual &actual, int threads) {
  const Output exact = attentionFp64(p, threads);
  const Errors kernel = measure(p, exact, actual.o, actual.lse);

  // The error of a model is a largest value of random roundings: of few elements it varies much from one set
  // of roundings to the next, so small problems are modelled several times.
  const int64_t elements = std::max<int64_t>(1, kernel.rows * p.head_dim_v);
  const int models = int(std::clamp<int64_t>(131072 / elements, 1, 12));
  Errors model;
  for (int i = 0; i < models; ++i) {
    const Output rounded = attentionStorageModel(p, std::numbers::ln2 * i / models, threads);
    const Errors e = measure(p, exact, rounded.o, rounded.lse);
    model.o = std::max(model.o, e.o);
    model.lse = std::max(model.lse, e.lse);
  }

  Comparison c;
  c.error = kernel.o;
  c.lse_error = kernel.lse;
  c.absolute_error = kernel.absolute;
  c.rows = kernel.rows;
  c.worst_row = kernel.row;
  c.worst_head = kernel.head;
  // Floors. A score of magnitude |s| that is rounded a few times (scale, log2 e, the subtraction of the
  // maximum) moves by a few |s| epsilon, and its probability by as much, relatively; exp2 itself and the sums
  // add some epsilon. lse is a score plus a logarithm. Both are 1/1000 of a 16-bit rounding for usual scores,
  // and bind for fp32 only.
  const double floor = kEpsilon * (16 + 4 * exact.max_score);
  c.bound = 1.25 * model.o + floor;
  c.lse_bound = 1.25 * model.lse + floor;
  return c;
}

} // namespace flashplus::reference
