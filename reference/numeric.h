// SPDX-License-Identifier: BSD-3-Clause
// Storage types on the host: exact widening, rounding to nearest even.
#pragma once

#include "spec/dtype.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace flashplus::reference {

inline float bitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t floatToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float bf16ToFloat(uint16_t v) { return bitsToFloat(uint32_t(v) << 16); }
inline uint16_t floatToBf16(float v) {
  const uint32_t bits = floatToBits(v);
  if (std::isnan(v))
    return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float fp16ToFloat(uint16_t v) {
  const uint32_t sign = uint32_t(v & 0x8000) << 16, exponent = v >> 10 & 31, mantissa = v & 0x3ff;
  if (exponent == 31)
    return bitsToFloat(sign | 0x7f800000 | mantissa << 13);
  if (exponent == 0)
    return std::copysign(std::ldexp(float(mantissa), -24), bitsToFloat(sign | 0x3f800000));
  return bitsToFloat(sign | (exponent + 112) << 23 | mantissa << 13);
}
inline uint16_t floatToFp16(float v) {
  const uint16_t sign = uint16_t(floatToBits(v) >> 16 & 0x8000);
  const float a = std::fabs(v);
  if (std::isnan(v))
    return uint16_t(sign | 0x7e00);
  if (a >= 65520.0f) // half-way to the next value after the largest, 65504
    return uint16_t(sign | 0x7c00);
  if (a < 6.103515625e-05f) // subnormal: steps of 2^-24
    return uint16_t(sign | uint16_t(std::nearbyint(std::ldexp(a, 24))));
  const uint32_t bits = floatToBits(a) - (112u << 23);
  return uint16_t(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13);
}

/// Element `index` of an array of storage type.
inline float loadElement(const void *data, DType dtype, int64_t index) {
  if (dtype == DType::F32)
    return static_cast<const float *>(data)[index];
  const uint16_t v = static_cast<const uint16_t *>(data)[index];
  return dtype == DType::F16 ? fp16ToFloat(v) : bf16ToFloat(v);
}
inline void storeElement(void *data, DType dtype, int64_t index, float value) {
  if (dtype == DType::F32)
    static_cast<float *>(data)[index] = value;
  else
    static_cast<uint16_t *>(data)[index] = dtype == DType::F16 ? floatToFp16(value) : floatToBf16(value);
}
inline float roundToStorage(DType dtype, float value) {
  switch (dtype) {
  case DType::F16:
    return fp16ToFloat(floatToFp16(value));
  case DType::BF16:
    return bf16ToFloat(floatToBf16(value));
  case DType::F32:
    break;
  }
  return value;
}

/// Bits of precision, the implicit one included.
constexpr int precisionBits(DType dtype) { return dtype == DType::F16 ? 11 : dtype == DType::BF16 ? 8 : 24; }

} // namespace flashplus::reference
