// SPDX-License-Identifier: BSD-3-Clause
#include "reference/compare_backward.h"

#include "reference/numeric.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <sstream>

namespace flashplus::reference {
namespace {

constexpr double kEpsilon = 0x1p-24; // fp32 unit roundoff
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A gradient as rows of `dim` elements, `heads` of them a row of the batch.
struct View {
  std::string name;
  const std::vector<double> *actual, *exact, *scales;
  const std::vector<uint8_t> *valid; ///< Or null for all.
  int64_t heads, dim;
};

struct Errors {
  double largest = 0, squares = 0, absolute = 0;
  int64_t rows = 0, row = 0, head = 0;
};

Errors measure(const View &v, const std::vector<double> &values) {
  Errors e;
  const int64_t rows = int64_t(v.exact->size()) / (v.heads * v.dim);
  for (int64_t i = 0; i < rows * v.heads; ++i) {
    if (v.valid && !(*v.valid)[size_t(i / v.heads)])
      continue;
    const size_t at = size_t(i * v.dim);
    double scale = 0, error = 0, squares = 0;
    for (size_t c = at; c < at + size_t(v.dim); ++c) {
      double d = std::fabs(values[c] - (*v.exact)[c]);
      if (std::isnan(d)) // the same infinity, which no gradient should be, included
        d = kInfinity;
      error = std::max(error, d);
      squares += d * d;
      scale = std::max(scale, (*v.scales)[c]);
    }
    e.absolute = std::max(e.absolute, error);
    ++e.rows;
    if (error == 0)
      continue;
    const double relative = scale == 0 || error == kInfinity ? kInfinity : error / scale;
    e.squares += scale == 0 ? kInfinity : squares / (scale * scale);
    if (relative > e.largest) {
      e.largest = relative;
      e.row = i / v.heads;
      e.head = i % v.heads;
    }
  }
  return e;
}

/// Every gradient that the kernel has, with those of `exact`.
std::vector<View> views(const Problem &p, const Gradients &actual, const BackwardOutput &exact) {
  std::vector<View> all;
  auto add = [&](const std::string &name, const std::vector<double> &a, const std::vector<double> &e,
                 const std::vector<double> &scales, const std::vector<uint8_t> *valid = nullptr,
                 int64_t heads = 1, int64_t dim = 1) {
    if (!a.empty())
      all.push_back({name, &a, &e, &scales, valid, heads, dim});
  };
  add("dq", actual.dq, exact.dq, exact.scales.dq, &exact.valid_q, p.heads_q, p.head_dim_qk);
  add("dk", actual.dk, exact.dk, exact.scales.dk, &exact.valid_k, p.heads_k, p.head_dim_qk);
  add("dv", actual.dv, exact.dv, exact.scales.dv, &exact.valid_k, p.heads_k, p.head_dim_v);
  for (size_t slot = 0; slot < std::min(actual.dtensors.size(), exact.dtensors.size()); ++slot)
    add("d" + p.score.tensors[slot].name, actual.dtensors[slot], exact.dtensors[slot],
        exact.scales.dtensors[slot]);
  add("dscalars", actual.dscalars, exact.dscalars, exact.scales.dscalars);
  add("dsoftcap", actual.dsoftcap, exact.dsoftcap, exact.scales.dsoftcap);
  add("dslopes", actual.dslopes, exact.dslopes, exact.scales.dslopes);
  return all;
}

} // namespace

bool BackwardComparison::good() const {
  return std::all_of(parts.begin(), parts.end(), [](const Part &part) { return part.good(); });
}

std::string BackwardComparison::complaint() const {
  std::ostringstream text;
  for (const Part &p : parts)
    if (!p.good())
      text << (text.tellp() > 0 ? "; " : "") << p.name << " error " << p.error << " of " << p.bound
           << ", rms " << p.rms << " of " << p.rms_bound << ", worst at row " << p.worst_row << " head "
           << p.worst_head;
  return text.str();
}

BackwardComparison compareBackward(const BackwardProblem &problem, const Gradients &actual, bool rounds_p,
                                   int threads) {
  const Problem &p = problem.forward;
  const BackwardOutput exact = backwardFp64(problem, threads);
  const std::vector<View> all = views(p, actual, exact);
  BackwardComparison c;
  if (all.empty())
    return c;
  int64_t fewest = std::numeric_limits<int64_t>::max();
  bool sizes = true;
  for (const View &v : all) {
    BackwardComparison::Part part;
    part.name = v.name;
    if (v.actual->size() != v.exact->size()) {
      part.error = part.rms = kInfinity;
      sizes = false;
    } else {
      const Errors e = measure(v, *v.actual);
      const int64_t elements = e.rows * v.dim;
      part.error = e.largest;
      part.rms = elements ? std::sqrt(e.squares / double(elements)) : 0;
      part.absolute_error = e.absolute;
      part.rows = e.rows;
      part.worst_row = e.row;
      part.worst_head = e.head;
      if (v.dim > 1)
        fewest = std::min(fewest, std::max<int64_t>(elements, 1));
    }
    c.parts.push_back(part);
  }
  if (!sizes)
    return c;

  // Of few elements a model's error varies much from one set of roundings to the next, as in compare().
  const int models = int(std::clamp<int64_t>(65536 / fewest, 1, 12));
  std::vector<double> largest(all.size(), 0), rms(all.size(), 0);
  for (int i = 0; i < models; ++i) {
    const BackwardOutput model =
        backwardStorageModel(problem, {std::numbers::ln2 * i / models, rounds_p}, threads);
    const std::vector<View> modelled = views(p, model, exact);
    for (size_t part = 0; part < all.size(); ++part)
      for (const View &v : modelled)
        if (v.name == all[part].name) {
          const Errors e = measure(v, *v.actual);
          largest[part] = std::max(largest[part], e.largest);
          rms[part] = std::max(rms[part], e.rows ? std::sqrt(e.squares / double(e.rows * v.dim)) : 0);
        }
  }
  // The floor is that of compare(): a probability is off by a few |w| epsilon, relatively, and sums add some
  // epsilon.
  const double floor = kEpsilon * (16 + 4 * exact.max_score);
  // A scalar's error is one sample, about which a dozen models say little; a scale is such that it deviates
  // by half a unit in the last place / sqrt(3), of which three are allowed.
  const double one = std::sqrt(3.0) * std::ldexp(1, -precisionBits(p.dtype));
  for (size_t part = 0; part < all.size(); ++part) {
    if (!std::isfinite(largest[part])) // a bound of infinity would let everything pass
      continue;
    const double least = all[part].dim == 1 && !all[part].valid ? one : 0;
    c.parts[part].bound = std::max(1.25 * largest[part], least) + floor;
    c.parts[part].rms_bound = std::max(1.25 * rms[part], least) + floor;
  }
  return c;
}

} // namespace flashplus::reference
