// SPDX-License-Identifier: BSD-3-Clause
// Number formats and rounding, as the PTX ISA defines them (sections "Floating Point Instructions" and
// "cvt").
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>

namespace flashplus::emu {

enum class Rounding : uint8_t { Nearest, Zero, Down, Up };

/// Subnormal -> zero of the same sign.
inline float flush(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return (bits & 0x7f800000u) == 0 ? std::bit_cast<float>(bits & 0x80000000u) : x;
}
inline constexpr uint32_t kNan32 = 0x7fffffffu; ///< What f32 instructions give for NaN.
inline float nan32() { return std::bit_cast<float>(kNan32); }
/// NaN of any kind -> the one that PTX instructions produce.
inline float canonical(float x) { return x != x ? nan32() : x; }

inline float halfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent)
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = float(fraction) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

/// 8-bit formats: e4m3 has no infinity and one NaN a sign, e5m2 is the upper half of an f16.
inline float e4m3ToFloat(uint8_t b) {
  const int exponent = b >> 3 & 15, mantissa = b & 7;
  const float sign = b & 0x80 ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7)
    return nan32();
  return sign * (exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9));
}
inline float e5m2ToFloat(uint8_t b) { return halfToFloat(uint16_t(b << 8)); }
/// tf32 is an f32 whose lower 13 bits do not count.
inline float tf32ToFloat(uint32_t b) { return std::bit_cast<float>(b & ~0x1fffu); }

inline float bfloatToFloat(uint16_t b) { return std::bit_cast<float>(uint32_t(b) << 16); }

/// Rounds to nearest even, or towards zero.
inline uint16_t floatToHalf(float x, Rounding rounding = Rounding::Nearest) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000u)
    return 0x7fff;
  if (magnitude == 0x7f800000u)
    return sign | 0x7c00;
  const bool up = rounding == Rounding::Nearest;
  if (magnitude >= 0x47800000u) // 2^16
    return sign | (up ? 0x7c00 : 0x7bff);
  int shift;
  uint32_t value, base;
  if (magnitude >= 0x38800000u) { // normal: 2^-14 and up
    shift = 13;
    value = magnitude - 0x38000000u;
    base = 0;
  } else {
    const int exponent = int(magnitude >> 23);
    if (exponent < 101) // below half of the smallest subnormal
      return sign;
    shift = 126 - exponent;
    value = (magnitude & 0x7fffffu) | 0x800000u;
    base = 0;
  }
  uint32_t result = base + (value >> shift);
  const uint32_t rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
  if (up && (rest > half || (rest == half && (result & 1))))
    ++result; // a carry into the exponent is right, up to infinity
  return sign | uint16_t(result);
}

inline uint16_t floatToBfloat(float x, Rounding rounding = Rounding::Nearest) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return 0x7fff;
  if (rounding == Rounding::Zero)
    return uint16_t(bits >> 16);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/// Runs `f` with the processor's rounding mode set. The operands must be volatile to it, or the compiler may
/// compute in its own mode.
template <class F> auto withRounding(Rounding rounding, F f) {
  static constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  std::fesetround(kModes[int(rounding)]);
  auto result = f();
  std::fesetround(FE_TONEAREST);
  return result;
}

// Approximations. The hardware's tables are not public; these are the exact results rounded once, which is
// inside every documented error bound (PTX ISA: ex2 2 ulp, rcp 1 ulp, lg2 2^-22 absolute or relative, sqrt
// and rsqrt 3 ulp or better, div 2 ulp, tanh 2^-11 relative).
inline float exp2Approx(float x) { return canonical(float(std::exp2(double(x)))); }
inline float log2Approx(float x) { return canonical(float(std::log2(double(x)))); }
inline float tanhApprox(float x) { return canonical(float(std::tanh(double(x)))); }

} // namespace flashplus::emu
