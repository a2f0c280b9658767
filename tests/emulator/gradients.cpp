// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/gradients.h"

#include "reference/score_rows.h"

#include <cmath>
#include <limits>

namespace flashplus::emu::test {
namespace {

double dot(const double *a, const double *b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i)
    sum += a[i] * b[i];
  return sum;
}
double size(const double *a, const double *b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i)
    sum += std::abs(a[i] * b[i]);
  return sum;
}

/// Roundings of a storage dtype.
struct Rounding {
  explicit Rounding(DType dtype)
      : relative(dtype == DType::F16 ? 0x1p-11 : 0x1p-8), absolute(dtype == DType::F16 ? 0x1p-25 : 0) {}
  double relative, absolute; ///< Half a unit of the last place; fp16's smallest numbers are 2^-24 apart.
  double of(double x) const { return relative * std::abs(x) + absolute; }
};

/// Mean square of a rounding's error, over that of the largest possible one: uniform up to half a unit of the
/// last place, which is a relative error of u / m for a mantissa m in [1, 2); log-uniform m, as products
/// have: 1/3 * 3 / (8 ln 2).
constexpr double kMeanSquare = 0.18;

/// Adds to a row of a result factor x, of which the factor is off by at most `error` in itself, and by
/// `common` that is not independent of the other terms' (its variance is added by others).
void add(Expected &e, int64_t row, int64_t head, double factor, double error, double common,
         const double *x) {
  double *value = e.value.at(row, head), *bound = e.bound.at(row, head), *variance = e.variance.at(row, head);
  for (int d = 0; d < e.value.dim; ++d) {
    value[d] += factor * x[d];
    bound[d] += (error + common) * std::abs(x[d]);
    variance[d] += error * error * kMeanSquare * x[d] * x[d];
  }
}

void roundResult(Expected &e, const Rounding &rounding) {
  for (size_t i = 0; i < e.value.values.size(); ++i) {
    const double error = rounding.of(e.value.values[i]) + 1e-30;
    e.bound.values[i] += error;
    e.variance.values[i] += error * error * kMeanSquare;
  }
}

/// Final scores of one row's keys and their slopes.
class Scores {
public:
  Scores(const ScoreExpr &expr, const Inputs &in)
      : identity(expr.isIdentity()), nodes_(expr.nodes, in.scalars, in.tensors),
        last_(int(expr.nodes.size()) - 1) {}

  const bool identity;
  std::vector<double> value, slope;

  void evaluate(const reference::ScoreRow &row, int64_t first_key, std::vector<double> s) {
    slope.assign(s.size(), 1);
    if (identity) {
      value = std::move(s);
      return;
    }
    constexpr double kStep = 1e-5;
    value = at(row, first_key, s, 0);
    const std::vector<double> above = at(row, first_key, s, kStep), below = at(row, first_key, s, -kStep);
    for (size_t i = 0; i < s.size(); ++i) // -infinity has p = 0, with any slope
      slope[i] = std::isinf(value[i]) ? 0 : (above[i] - below[i]) / (2 * kStep);
  }

private:
  std::vector<double> at(const reference::ScoreRow &row, int64_t first_key, std::vector<double> s,
                         double step) {
    for (double &x : s)
      x += step;
    nodes_.evaluate(row, first_key, s);
    return nodes_.values(last_);
  }

  reference::NodeRows<double> nodes_;
  const int last_;
};

} // namespace

std::vector<Rows> sequencesOf(const Shape &s) {
  std::vector<Rows> rows;
  const bool ragged = !s.lengths_q.empty();
  const auto cu_q = cumulative(s.lengths_q), cu_k = cumulative(s.lengths_k);
  for (size_t b = 0; b < (ragged ? s.lengths_q.size() : size_t(s.batch)); ++b) {
    Rows r{int64_t(b) * s.seqlen_q, s.seqlen_q, int64_t(b) * s.seqlen_k, s.seqlen_k};
    if (ragged)
      r = {cu_q[b], s.lengths_q[b], cu_k[b], s.lengths_k[b]};
    if (!s.used_q.empty())
      r.q_len = std::min<int64_t>(r.q_len, s.used_q[b]);
    if (!s.used_k.empty())
      r.k_len = std::min<int64_t>(r.k_len, s.used_k[b]);
    rows.push_back(r);
  }
  return rows;
}

Gradients gradients(const Shape &s, const Inputs &in) {
  const Rounding rounding(s.dtype);
  Gradients g;
  g.o = HostTensor(in.q.rows, in.q.heads, s.dv);
  g.lse = HostTensor(in.q.rows, in.q.heads, 1);
  g.dq = in.q, g.dk = in.k, g.dv = in.v;
  Scores scores(specOf(s).score, in);
  int64_t b = -1;
  for (const Rows &r : sequencesOf(s)) {
    ++b;
    for (int64_t h = 0; h < s.heads_q; ++h)
      for (int64_t i = 0; i < r.q_len; ++i) {
        const int64_t row = r.first_q + i, hk = h / (s.heads_q / s.heads_k), place = i + r.k_len - r.q_len;
        const int64_t lo = s.window_left < 0 ? 0 : std::max<int64_t>(0, place - s.window_left);
        const int64_t hi =
            s.window_right < 0 ? r.k_len : std::min<int64_t>(r.k_len, place + s.window_right + 1);
        g.lse.at(row, h)[0] = -std::numeric_limits<double>::infinity();
        if (lo >= hi)
          continue;
        std::vector<double> p;
        double most = -std::numeric_limits<double>::infinity(), sum = 0, largest = 0;
        for (int64_t j = lo; j < hi; ++j)
          p.push_back(in.scale * dot(in.q.at(row, h), in.k.at(r.first_k + j, hk), s.dqk));
        scores.evaluate({b, h, hk, i, r.q_len, r.k_len}, lo, p);
        for (size_t j = 0; j < p.size(); ++j) {
          // What the score's own roundings are relative to.
          largest = std::max(largest, std::abs(p[j] * scores.slope[j]));
          p[j] = scores.value[j];
          most = std::max(most, p[j]);
          if (std::isfinite(p[j]))
            largest = std::max(largest, std::abs(p[j]));
        }
        for (double &x : p)
          sum += x = std::exp(x - most);
        g.lse.at(row, h)[0] = most + std::log(sum);
        double *o = g.o.at(row, h);
        const double *dout = in.dout.at(row, h);
        for (int64_t j = lo; j < hi; ++j)
          for (int d = 0; d < s.dv; ++d)
            o[d] += p[size_t(j - lo)] / sum * in.v.at(r.first_k + j, hk)[d];
        const double delta = dot(dout, o, s.dv) - (in.dlse.rows ? in.dlse.at(row, h)[0] : 0);
        // Of fp32: scores and lse are off by a few units of their last place, which is the relative error of
        // p.
        const double fp32 = 0x1p-20 * (1 + largest);
        double delta_error = fp32 * size(dout, o, s.dv), delta_variance = 0;
        for (int d = 0; d < s.dv; ++d) {
          const double error = std::abs(dout[d]) * rounding.of(o[d]);
          delta_error += error;
          delta_variance += error * error * kMeanSquare;
        }
        std::vector<double> sum_pk(size_t(s.dqk), 0);
        for (int64_t j = lo; j < hi; ++j) {
          const int64_t key = r.first_k + j;
          const double weight = p[size_t(j - lo)] / sum, *v = in.v.at(key, hk), *k = in.k.at(key, hk);
          const double sloped = weight * scores.slope[size_t(j - lo)];
          const double dp = dot(dout, v, s.dv), ds = sloped * (dp - delta);
          const double weight_error = rounding.of(weight) + fp32 * weight;
          double ds_error = rounding.of(ds) + fp32 * (std::abs(ds) + std::abs(sloped) * size(dout, v, s.dv));
          if (!scores.identity) // a slope is off by units of the last place of 1 at least, as 1 - tanh^2 is
            ds_error += fp32 * weight * std::abs(dp - delta);
          const double common = in.scale * std::abs(sloped) * delta_error;
          add(g.dv, key, hk, weight, weight_error, 0, dout);
          add(g.dk, key, hk, in.scale * ds, in.scale * ds_error, common, in.q.at(row, h));
          add(g.dq, row, h, in.scale * ds, in.scale * ds_error, common, k);
          for (int d = 0; d < s.dqk; ++d) {
            sum_pk[size_t(d)] += sloped * k[d];
            g.dk.variance.at(key, hk)[d] +=
                delta_variance * std::pow(in.scale * sloped * in.q.at(row, h)[d], 2);
          }
        }
        for (int d = 0; d < s.dqk; ++d) // one delta for all keys
          g.dq.variance.at(row, h)[d] += delta_variance * std::pow(in.scale * sum_pk[size_t(d)], 2);
      }
  }
  for (Expected *e : {&g.dq, &g.dk, &g.dv})
    roundResult(*e, rounding);
  return g;
}

Deviation deviation(const Expected &expected, const HostTensor &actual) {
  Deviation result;
  double squares = 0, variance = 0;
  for (size_t i = 0; i < actual.values.size(); ++i) {
    const double error = std::abs(actual.values[i] - expected.value.values[i]);
    if (!(error <= expected.bound.values[i])) // or NaN
      result.worst = std::max(result.worst, std::isnan(error) ? std::numeric_limits<double>::infinity()
                                                              : error / expected.bound.values[i]);
    else
      result.worst = std::max(result.worst, error / expected.bound.values[i]);
    squares += error * error;
    variance += expected.variance.values[i];
  }
  if (variance > 0)
    result.rms = std::sqrt(squares / variance) / 1.25;
  return result;
}

} // namespace flashplus::emu::test
