// SPDX-License-Identifier: BSD-3-Clause
// Gradients of attention with any score in fp64, and how far from them a kernel may be that rounds only where
// it must: p and ds to the storage dtype before the products, o before delta, and the results.
#pragma once

#include "tests/emulator/attention.h"

namespace flashplus::emu::test {

/// A tensor on the host, (rows of the whole batch, heads, dim).
struct HostTensor {
  int64_t rows = 0, heads = 0;
  int dim = 0;
  std::vector<double> values;

  HostTensor() = default;
  HostTensor(int64_t rows, int64_t heads, int dim)
      : rows(rows), heads(heads), dim(dim), values(size_t(rows * heads * dim)) {}
  double *at(int64_t row, int64_t head) { return values.data() + (row * heads + head) * dim; }
  const double *at(int64_t row, int64_t head) const { return values.data() + (row * heads + head) * dim; }
};

/// The valid rows of one batch entry.
struct Rows {
  int64_t first_q, q_len, first_k, k_len;
};
std::vector<Rows> sequencesOf(const Shape &shape);

struct Inputs {
  HostTensor q, k, v, dout; ///< Values that the storage dtype has.
  HostTensor dlse;          ///< dim 1; empty for none.
  double scale = 1;         ///< softmax_scale
  // Of the shape's score.
  std::vector<float> scalars;
  std::vector<reference::AuxTensor> tensors;
};

/// A result with what it may be off by: never more than `bound`, and about the root of `variance`.
struct Expected {
  HostTensor value, bound, variance;
  Expected() = default;
  Expected(const HostTensor &like) : value(like.rows, like.heads, like.dim), bound(value), variance(value) {}
};

struct Gradients {
  HostTensor o, lse; ///< lse: dim 1; -infinity for a row that sees no key.
  Expected dq, dk, dv;
};

/// Slopes of scores are differences of their values, so that nothing here knows a derivative's rules.
Gradients gradients(const Shape &shape, const Inputs &in);

/// How much of what is allowed the values of a result use: 1 is the limit of both.
struct Deviation {
  double worst = 0; ///< Largest error over its bound.
  double rms = 0;   ///< Root of the sum of squared errors over 1.25 times that of the variances.
  bool good() const { return worst <= 1 && rms <= 1; }
};
Deviation deviation(const Expected &expected, const HostTensor &actual);

} // namespace flashplus::emu::test
