// SPDX-License-Identifier: BSD-3-Clause
// The attention of one token as a loop over a plain copy of its sequence's keys and values, without pages,
// batches or a library: what the server's results are checked against.
#pragma once

#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace serving {

class Plain {
public:
  explicit Plain(const Model &model) : model_(model) {}

  /// The largest difference between `o`, kHeadsQ rows, and what the token at `position` gives. Positions of a
  /// request come in order.
  float difference(int32_t request, int32_t position, const uint16_t *o) {
    Copy &copy = copies_[request];
    for (int32_t p = int32_t(copy.v.size() / (kHeadsK * kHeadDim)); p <= position; ++p)
      for (int64_t head = 0; head < kHeadsK; ++head) {
        turned(model_.row(Model::K, request, p, head), p, copy.k);
        const uint16_t *v = model_.row(Model::V, request, p, head);
        for (int64_t i = 0; i < kHeadDim; ++i)
          copy.v.push_back(fromBf16(v[i]));
      }
    float most = 0;
    for (int64_t head = 0; head < kHeadsQ; ++head) {
      std::vector<float> q, want(kHeadDim);
      turned(model_.row(Model::Q, request, position, head), position, q);
      attend(q, copy, head / (kHeadsQ / kHeadsK), position + 1, want);
      for (int64_t i = 0; i < kHeadDim; ++i) {
        const float off = std::abs(want[size_t(i)] - fromBf16(o[head * kHeadDim + i]));
        most = off <= most ? most : off; // NaN stays
      }
    }
    return most;
  }
  void forget(int32_t request) { copies_.erase(request); }

private:
  struct Copy {
    std::vector<float> k, v; ///< (tokens, kHeadsK, kHeadDim)
  };

  /// Appends a row with rotary embedding, as bf16 has it.
  void turned(const uint16_t *row, int32_t position, std::vector<float> &to) const {
    const size_t start = to.size(), half = kHeadDim / 2;
    to.resize(start + kHeadDim);
    for (size_t i = 0; i < half; ++i) {
      const float a = fromBf16(row[i]), b = fromBf16(row[half + i]);
      const float c = fromBf16(model_.cos()[size_t(position) * half + i]),
                  s = fromBf16(model_.sin()[size_t(position) * half + i]);
      to[start + i] = fromBf16(toBf16(a * c - b * s));
      to[start + half + i] = fromBf16(toBf16(a * s + b * c));
    }
  }

  static void attend(const std::vector<float> &q, const Copy &copy, int64_t head, int32_t keys,
                     std::vector<float> &o) {
    std::vector<float> scores(size_t(keys), 0);
    for (int32_t j = 0; j < keys; ++j) {
      const float *k = &copy.k[size_t((j * kHeadsK + head) * kHeadDim)];
      for (int64_t i = 0; i < kHeadDim; ++i)
        scores[size_t(j)] += q[size_t(i)] * k[i];
      scores[size_t(j)] /= std::sqrt(float(kHeadDim));
    }
    const float most = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    for (int32_t j = 0; j < keys; ++j) {
      const float weight = std::exp(scores[size_t(j)] - most);
      const float *v = &copy.v[size_t((j * kHeadsK + head) * kHeadDim)];
      sum += weight;
      for (int64_t i = 0; i < kHeadDim; ++i)
        o[size_t(i)] += weight * v[i];
    }
    for (float &x : o)
      x /= sum;
  }

  const Model &model_;
  std::map<int32_t, Copy> copies_;
};

} // namespace serving
