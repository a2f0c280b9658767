// SPDX-License-Identifier: BSD-3-Clause
// What stands in for a model: the rows of q, k and v that its projections would give for a token. They depend
// on the request and the token's place alone, so that a check can have them again.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace serving {

constexpr int64_t kHeadsQ = 8, kHeadsK = 2, kHeadDim = 64; ///< Of its one layer.

/// A number as bf16 has it, rounded to the nearest.
inline uint16_t toBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float fromBf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

class Model {
public:
  explicit Model(int64_t positions) : rows_(kRows * kHeadDim), cos_(positions * kHeadDim / 2), sin_(cos_) {
    std::mt19937 engine(1);
    for (uint16_t &x : rows_) // between -2 and 2
      x = toBf16(float(engine() % 4096) / 1024 - 2);
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t i = 0; i < kHeadDim / 2; ++i) {
        const double angle = double(p) * std::pow(10000.0, -2.0 * double(i) / double(kHeadDim));
        cos_[size_t(p * kHeadDim / 2 + i)] = toBf16(float(std::cos(angle)));
        sin_[size_t(p * kHeadDim / 2 + i)] = toBf16(float(std::sin(angle)));
      }
  }

  enum What : uint32_t { Q, K, V };
  /// kHeadDim numbers: a head's row for token `position` of a request.
  const uint16_t *row(What what, int32_t request, int32_t position, int64_t head) const {
    uint32_t h = uint32_t(request) * 2654435761u ^ uint32_t(position) * 2246822519u ^
                 (uint32_t(head) * 4 + what) * 3266489917u;
    h = (h ^ h >> 15) * 2246822519u;
    return &rows_[size_t((h ^ h >> 13) % kRows) * kHeadDim];
  }
  /// Those of all heads, one after the other.
  void write(What what, int32_t request, int32_t position, uint16_t *to) const {
    const int64_t heads = what == Q ? kHeadsQ : kHeadsK;
    for (int64_t head = 0; head < heads; ++head)
      std::memcpy(to + head * kHeadDim, row(what, request, position, head), kHeadDim * 2);
  }

  /// (positions, kHeadDim / 2): the angles of rotary embedding.
  const std::vector<uint16_t> &cos() const { return cos_; }
  const std::vector<uint16_t> &sin() const { return sin_; }

private:
  static constexpr size_t kRows = 4093;
  std::vector<uint16_t> rows_, cos_, sin_;
};

} // namespace serving
