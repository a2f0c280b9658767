// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/cases.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace flashplus::emu::test {
namespace {

using Args = std::span<const uint64_t>;

float f32(uint64_t bits) { return std::bit_cast<float>(uint32_t(bits)); }
uint64_t bits32(float x) { return std::isnan(x) ? 0x7fffffff : std::bit_cast<uint32_t>(x); }

/// Every finite value of a 16-bit float format in ascending order of magnitude is its own encoding, so
/// rounding is a search: the nearest of the neighbours, ties to the even encoding.
double decode(uint32_t magnitude, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t exponent = magnitude >> fraction_bits, fraction = magnitude & ((1u << fraction_bits) - 1);
  if (exponent == 0)
    return std::ldexp(double(fraction), 1 - bias - fraction_bits);
  return std::ldexp(double(fraction | 1u << fraction_bits), int(exponent) - bias - fraction_bits);
}

uint64_t roundTo(float x, int exponent_bits, int fraction_bits, bool toward_zero) {
  if (std::isnan(x))
    return 0x7fff;
  const uint32_t infinity = ((1u << exponent_bits) - 1) << fraction_bits;
  const uint64_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(double(x));
  if (std::isinf(x))
    return sign | infinity;
  uint32_t low = 0, high = infinity; // decode(infinity) is the value one step past the largest
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (decode(middle, exponent_bits, fraction_bits) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - decode(low, exponent_bits, fraction_bits);
  const double above = decode(high, exponent_bits, fraction_bits) - magnitude;
  if (!toward_zero && (above < below || (above == below && low % 2)))
    low = high;
  return sign | low;
}

std::vector<uint64_t> interesting() {
  std::vector<uint64_t> v = {0x00000000, 0x80000000, 0x00000001, 0x7f800000, 0xff800000, 0x7fc00000,
                             0x7f7fffff, 0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, 0x33000000,
                             0x33000001, 0x32ffffff, 0x387fc000, 0x387fe000, 0x38800000, 0x3f800000,
                             0x3f808000, 0x3f818000, 0x3f807fff, 0x3f801000, 0x3f803000, 0x7f7f7fff,
                             0x7f7f8000, 0x00008000, 0x00018000, 0xbf808001};
  Random random(11);
  for (int i = 0; i < 200; ++i)
    v.push_back(random.next() & 0xffffffff);
  for (int i = 0; i < 100; ++i) // inside the range of f16, half of them ties
    v.push_back((random.next() & 1) << 31 | (100 + random.below(44)) << 23 |
                ((random.next() & 0x7ff000) | (i % 2 ? random.next() & 0xfff : 0)));
  return v;
}

} // namespace

void addConvertCases(std::vector<Case> &cases) {
  auto one = [&](std::string name, int from_bits, int to_bits, std::vector<uint64_t> values,
                 std::function<uint64_t(uint64_t)> f) {
    Elementwise e;
    e.name = name;
    e.instruction = name + " $0, $1;";
    e.argument_bits = {from_bits};
    e.result_bits = to_bits;
    e.arguments = {std::move(values)};
    e.expect = [f](Args a) { return f(a[0]); };
    cases.push_back(elementwise(e));
  };
  std::vector<uint64_t> first = interesting(), second = interesting();
  std::rotate(second.begin(), second.begin() + 17, second.end());
  for (auto [name, exponent, fraction] : {std::tuple{"f16x2", 5, 10}, {"bf16x2", 8, 7}})
    for (bool rz : {false, true}) {
      Elementwise e;
      e.name = std::string("cvt.") + (rz ? "rz." : "rn.") + name + ".f32";
      e.instruction = e.name + " $0, $1, $2;";
      e.argument_bits = {32, 32};
      e.arguments = {first, second};
      e.expect = [=, x = exponent, m = fraction](Args a) {
        return roundTo(f32(a[0]), x, m, rz) << 16 | roundTo(f32(a[1]), x, m, rz);
      };
      cases.push_back(elementwise(e));
    }
  one("cvt.rn.f16.f32", 32, 16, interesting(), [](uint64_t v) { return roundTo(f32(v), 5, 10, false); });
  one("cvt.rn.bf16.f32", 32, 16, interesting(), [](uint64_t v) { return roundTo(f32(v), 8, 7, false); });
  std::vector<uint64_t> halves;
  for (uint64_t v = 0; v < 0x10000; v += 13)
    halves.push_back(v);
  halves.insert(halves.end(), {0x7c00, 0xfc00, 0x0001, 0x83ff});
  one("cvt.f32.f16", 16, 32, halves, [](uint64_t v) {
    const double magnitude = (v & 0x7fff) > 0x7c00    ? NAN
                             : (v & 0x7fff) == 0x7c00 ? INFINITY
                                                      : decode(uint32_t(v & 0x7fff), 5, 10);
    return bits32(float(v & 0x8000 ? -magnitude : magnitude));
  });

  one("cvt.s64.s32", 32, 64, {0, 1, 0x7fffffff, 0x80000000, 0xffffffff},
      [](uint64_t v) { return uint64_t(int64_t(int32_t(v))); });
  one("cvt.u64.u32", 32, 64, {0, 1, 0x7fffffff, 0x80000000, 0xffffffff}, [](uint64_t v) { return v; });
  one("cvt.u32.u64", 64, 32, {0, 1, 0x123456789abcdef0, ~uint64_t(0)},
      [](uint64_t v) { return uint64_t(uint32_t(v)); });
  one("cvt.u16.u32", 32, 16, {0, 1, 0x12345678, 0xffffffff}, [](uint64_t v) { return v & 0xffff; });
  one("cvt.s32.s16", 16, 32, {0, 1, 0x7fff, 0x8000, 0xffff},
      [](uint64_t v) { return uint64_t(int64_t(int16_t(v))); });
  one("cvt.s32.s8", 32, 32, {0, 1, 0x7f, 0x80, 0x1ff},
      [](uint64_t v) { return uint64_t(int64_t(int8_t(v))); });
  one("cvt.sat.s16.s32", 32, 16, {0, 1, 0x7fff, 0x8000, 0xffff8000, 0xffff7fff, 0x80000000}, [](uint64_t v) {
    const int32_t x = int32_t(v);
    return uint64_t(uint16_t(x > 32767 ? 32767 : x < -32768 ? -32768 : x));
  });
  one("cvt.sat.u16.s32", 32, 16, {0, 1, 0xffff, 0x10000, 0xffffffff}, [](uint64_t v) {
    const int32_t x = int32_t(v);
    return uint64_t(x > 65535 ? 65535 : x < 0 ? 0 : x);
  });
  const std::vector<uint64_t> integers = {0,        1,          16777215,   16777216,   16777217,  16777218,
                                          16777219, 0x7fffffff, 0x80000000, 0xfeffffff, 0xffffffff};
  one("cvt.rn.f32.s32", 32, 32, integers, [](uint64_t v) { return bits32(float(int32_t(v))); });
  one("cvt.rn.f32.u32", 32, 32, integers, [](uint64_t v) { return bits32(float(uint32_t(v))); });
  one("cvt.rz.f32.u32", 32, 32, integers, [](uint64_t v) {
    float f = float(uint32_t(v));
    if (double(f) > double(uint32_t(v)))
      f = std::nextafterf(f, 0);
    return bits32(f);
  });
  one("cvt.rn.f64.s32", 32, 64, integers,
      [](uint64_t v) { return std::bit_cast<uint64_t>(double(int32_t(v))); });
  // Float to integer: out of range clamps; NaN is left out, whose result differs between sizes.
  std::vector<uint64_t> numbers;
  for (float x : {0.0f, -0.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49999997f, 3.7f, -3.7f, 2147483520.0f,
                  2147483648.0f, -2147483648.0f, 4e9f, 1e20f, -1e20f, INFINITY, -INFINITY, 1e-40f})
    numbers.push_back(std::bit_cast<uint32_t>(x));
  auto clamped = [](double x) {
    return uint64_t(uint32_t(int32_t(x < -2147483648.0  ? -2147483648.0
                                     : x > 2147483647.0 ? 2147483647.0
                                                        : x)));
  };
  one("cvt.rzi.s32.f32", 32, 32, numbers, [=](uint64_t v) { return clamped(std::trunc(double(f32(v)))); });
  one("cvt.rzi.ftz.s32.f32", 32, 32, numbers,
      [=](uint64_t v) { return clamped(std::trunc(double(f32(v)))); });
  one("cvt.rni.s32.f32", 32, 32, numbers,
      [=](uint64_t v) { return clamped(std::nearbyint(double(f32(v)))); });
  one("cvt.rmi.s32.f32", 32, 32, numbers, [=](uint64_t v) { return clamped(std::floor(double(f32(v)))); });
  one("cvt.rpi.s32.f32", 32, 32, numbers, [=](uint64_t v) { return clamped(std::ceil(double(f32(v)))); });
  one("cvt.rpi.ftz.s32.f32", 32, 32, numbers, [=](uint64_t v) {
    const float x = f32(v);
    return clamped(std::ceil(double(std::fpclassify(x) == FP_SUBNORMAL ? 0.0f : x)));
  });
  one("cvt.rzi.u32.f32", 32, 32, numbers, [](uint64_t v) {
    const double x = std::trunc(double(f32(v)));
    return uint64_t(uint32_t(x <= 0 ? 0 : x >= 4294967295.0 ? 4294967295.0 : x));
  });
  one("cvt.rmi.f32.f32", 32, 32, numbers, [](uint64_t v) { return bits32(std::floor(f32(v))); });
  one("cvt.f64.f32", 32, 64, numbers, [](uint64_t v) { return std::bit_cast<uint64_t>(double(f32(v))); });
  one("cvt.rn.f32.f64", 64, 32,
      {std::bit_cast<uint64_t>(1.00000005960464477539), std::bit_cast<uint64_t>(1e300),
       std::bit_cast<uint64_t>(-1e-320)},
      [](uint64_t v) { return bits32(float(std::bit_cast<double>(v))); });

  auto raw = [&](std::string name, std::string instruction, std::vector<int> bits, int result,
                 std::vector<std::vector<uint64_t>> values, std::function<uint64_t(Args)> f) {
    cases.push_back(elementwise({name, instruction, bits, result, values, f, {}}));
  };
  raw("mov.pack2", "mov.b32 $0, {$1, $2};", {16, 16}, 32, {{1, 0xffff, 0x1234}, {2, 0, 0x5678}},
      [](Args a) { return a[1] << 16 | a[0]; });
  raw("mov.pack64", "mov.b64 $0, {$1, $2};", {32, 32}, 64, {{1, 0xffffffff}, {2, 5}},
      [](Args a) { return a[1] << 32 | a[0]; });
  raw("mov.unpack", "mov.b32 {%rs0, %rs1}, $1; mov.b32 $0, {%rs1, %rs0};", {32}, 32,
      {{0x12345678, 0xffff0000}}, [](Args a) { return (a[0] >> 16 | a[0] << 16) & 0xffffffff; });
  raw("mov.unpack_sink", "mov.b32 {_, %rs1}, $1; cvt.u32.u16 $0, %rs1;", {32}, 32, {{0x12345678, 0xffff0000}},
      [](Args a) { return a[0] >> 16; });
  raw("selp.b64", "setp.eq.s32 %p0, $3, 0; selp.b64 $0, $1, $2, %p0;", {64, 64, 32}, 64,
      {{1, 2}, {3, 4}, {0, 1}}, [](Args a) { return a[2] ? a[1] : a[0]; });
}

} // namespace flashplus::emu::test
