// SPDX-License-Identifier: BSD-3-Clause
// Floating point, by the definitions: exact arithmetic in long double (64-bit significand) or double where
// that is wide enough, rounded once by the table of the PTX ISA.
#include "tests/emulator/cases.h"

#include <bit>
#include <cfenv>
#include <cmath>

namespace flashplus::emu::test {
namespace {

using Args = std::span<const uint64_t>;

float f32(uint64_t bits) { return std::bit_cast<float>(uint32_t(bits)); }
uint64_t bits32(float x) { return std::isnan(x) ? 0x7fffffff : std::bit_cast<uint32_t>(x); }
float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

std::vector<uint64_t> floats() {
  return {0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x00800000, 0x80800001, 0x3f800000,
          0xbf800000, 0x3f800001, 0x40490fdb, 0xc2f6e979, 0x34000000, 0x4b800001, 0x7f7fffff,
          0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x1e3ce508, 0xdf000000};
}

std::vector<uint64_t> randomFloats(size_t n, uint64_t seed, int low_exponent, int high_exponent) {
  Random random(seed);
  std::vector<uint64_t> v;
  for (size_t i = 0; i < n; ++i)
    v.push_back((random.next() & 1) << 31 |
                (127 + uint64_t(int64_t(random.below(uint64_t(high_exponent - low_exponent))) + low_exponent))
                    << 23 |
                (random.next() & 0x7fffff));
  return v;
}

} // namespace

void addFloatCases(std::vector<Case> &cases) {
  auto add = [&](std::string instruction, size_t arguments, std::vector<std::vector<uint64_t>> values,
                 std::function<uint64_t(Args)> f, Tolerance tolerance = {}) {
    Elementwise e;
    e.name = instruction;
    e.instruction = instruction + " $0";
    for (size_t i = 1; i <= arguments; ++i)
      e.instruction += ", $" + std::to_string(i);
    e.instruction += ";";
    e.argument_bits.assign(arguments, 32);
    e.arguments = std::move(values);
    e.expect = std::move(f);
    e.tolerance = tolerance;
    cases.push_back(elementwise(e));
  };
  const auto pairs = crossed({floats(), floats()});
  for (bool ftz : {false, true}) {
    const std::string suffix = ftz ? ".ftz.f32" : ".f32";
    auto in = [ftz](uint64_t v) { return ftz ? flushed(f32(v)) : f32(v); };
    auto out = [ftz](float v) { return bits32(ftz ? flushed(v) : v); };
    add("add" + suffix, 2, pairs, [=](Args a) { return out(in(a[0]) + in(a[1])); });
    add("sub" + suffix, 2, pairs, [=](Args a) { return out(in(a[0]) - in(a[1])); });
    add("mul" + suffix, 2, pairs, [=](Args a) { return out(in(a[0]) * in(a[1])); });
    add("add.rn" + suffix, 2, pairs, [=](Args a) { return out(in(a[0]) + in(a[1])); });
    add("mul.rn" + suffix, 2, pairs, [=](Args a) { return out(in(a[0]) * in(a[1])); });
    add("fma.rn" + suffix, 3,
        crossed({floats(),
                 floats(),
                 {0, 0x80000000, 0x3f800000, 0xbf800001, 0x00000001, 0x7f800000, 0x7fc00000, 0x34000001}}),
        [=](Args a) { return out(std::fma(in(a[0]), in(a[1]), in(a[2]))); });
    // Zero's sign: -0 is below +0; one NaN loses.
    auto minimum = [=](Args a, bool max) {
      const float x = in(a[0]), y = in(a[1]);
      if (std::isnan(x) || std::isnan(y))
        return out(std::isnan(x) ? y : x);
      if (x == y)
        return out(std::signbit(x) == max ? y : x);
      return out((x < y) != max ? x : y);
    };
    add("min" + suffix, 2, pairs, [=](Args a) { return minimum(a, false); });
    add("max" + suffix, 2, pairs, [=](Args a) { return minimum(a, true); });
    if (ftz) { // what neg and abs make of the payload of a NaN is not defined
      add("neg.ftz.f32", 1, {{0, 0x80000000, 1, 0x3f800000, 0xff800000, 0x807fffff}},
          [=](Args a) { return out(-in(a[0])); });
      add("abs.ftz.f32", 1, {{0, 0x80000000, 1, 0xbf800000, 0xff800000, 0x807fffff}},
          [=](Args a) { return out(std::fabs(in(a[0]))); });
    }
    // Directed roundings, from the exact value in long double (24 + 24 bits fit; sums of near exponents too).
    for (auto [name, mode] : {std::pair{"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}}) {
      auto round = [mode = mode](long double x) {
        std::fesetround(mode);
        volatile long double v = x;
        volatile float f = float(v);
        std::fesetround(FE_TONEAREST);
        return float(f);
      };
      const auto some = crossed({randomFloats(24, 3, -6, 6), randomFloats(24, 4, -6, 6)});
      add(std::string("add.") + name + suffix, 2, some,
          [=](Args a) { return out(round((long double)in(a[0]) + in(a[1]))); });
      add(std::string("mul.") + name + suffix, 2, some,
          [=](Args a) { return out(round((long double)in(a[0]) * in(a[1]))); });
    }
    // Approximations: the documented bounds (PTX ISA): rcp 1 ulp, div 2 ulp, ex2 2 ulp, sqrt.approx 3 ulp.
    constexpr double kUlp = 0x1p-23;
    auto ordinary = randomFloats(256, 5, -100, 100);
    for (uint64_t v : {0x0u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x00400000u, 0x3f800000u})
      ordinary.push_back(v);
    const Tolerance two{Tolerance::Kind::Relative, 2 * kUlp};
    add("rcp.approx" + suffix, 1, {ordinary}, [=](Args a) { return out(float(1.0 / double(in(a[0])))); },
        {Tolerance::Kind::Relative, kUlp});
    add("rsqrt.approx" + suffix, 1, {ordinary},
        [=](Args a) { return out(float(1.0 / std::sqrt(double(in(a[0]))))); },
        {Tolerance::Kind::Relative, 3 * kUlp});
    add("sqrt.approx" + suffix, 1, {ordinary},
        [=](Args a) { return out(float(std::sqrt(double(in(a[0]))))); },
        {Tolerance::Kind::Relative, 3 * kUlp});
    add(
        "div.full" + suffix, 2, {randomFloats(256, 6, -60, 60), randomFloats(256, 7, -60, 60)},
        [=](Args a) { return out(float(double(in(a[0])) / double(in(a[1])))); }, two);
    add(
        "div.approx" + suffix, 2, {randomFloats(256, 6, -60, 60), randomFloats(256, 7, -60, 60)},
        [=](Args a) { return out(float(double(in(a[0])) / double(in(a[1])))); }, two);
    auto exponents = randomFloats(256, 8, -20, 7);
    for (uint64_t v : {0x0u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xc2fc0000u, 0xc3000000u,
                       0x43000000u, 0x42fe0000u})
      exponents.push_back(v);
    add(
        "ex2.approx" + suffix, 1, {exponents},
        [=](Args a) { return out(float(std::exp2(double(in(a[0]))))); }, two);
    auto positive = ordinary;
    for (uint64_t &v : positive) {
      v &= 0x7fffffff;
      if (v >= 0x3f000000 && v <= 0x40000000)
        v += 0x01000000; // out of [0.5, 2], which has a case of its own
    }
    // lg2: absolute 2^-22 in [0.5, 2], relative 2^-22 elsewhere.
    add("lg2.approx" + suffix, 1, {positive}, [=](Args a) { return out(float(std::log2(double(in(a[0]))))); },
        {Tolerance::Kind::Relative, 0x1p-22});
    add("lg2.approx" + suffix + "_near1", 1,
        {{0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fa1c71c, 0x3fc00000, 0x40000000}},
        [=](Args a) { return out(float(std::log2(double(in(a[0]))))); },
        {Tolerance::Kind::Absolute, 0x1p-22});
    cases.back().ptx.replace(cases.back().ptx.find("_near1"), 6, "");
    // Comparisons.
    for (auto [op, f] : std::vector<std::pair<std::string, bool (*)(float, float)>>{
             {"eq", [](float x, float y) { return x == y; }},
             {"ne", [](float x, float y) { return x != y && !std::isunordered(x, y); }},
             {"lt", [](float x, float y) { return x < y; }},
             {"le", [](float x, float y) { return x <= y; }},
             {"gt", [](float x, float y) { return x > y; }},
             {"ge", [](float x, float y) { return x >= y; }},
             {"equ", [](float x, float y) { return x == y || std::isunordered(x, y); }},
             {"neu", [](float x, float y) { return x != y; }},
             {"ltu", [](float x, float y) { return x < y || std::isunordered(x, y); }},
             {"leu", [](float x, float y) { return x <= y || std::isunordered(x, y); }},
             {"gtu", [](float x, float y) { return x > y || std::isunordered(x, y); }},
             {"geu", [](float x, float y) { return x >= y || std::isunordered(x, y); }},
             {"num", [](float x, float y) { return !std::isunordered(x, y); }},
             {"nan", [](float x, float y) { return bool(std::isunordered(x, y)); }}}) {
      Elementwise e;
      e.name = "setp." + op + suffix;
      e.instruction = "setp." + op + suffix + " %p0, $1, $2; selp.b32 $0, 1, 0, %p0;";
      e.argument_bits = {32, 32};
      e.arguments = pairs;
      e.expect = [f = f, in](Args a) { return uint64_t(f(in(a[0]), in(a[1]))); };
      cases.push_back(elementwise(e));
    }
  }
  // Correctly rounded.
  add("div.rn.f32", 2, pairs, [](Args a) { return bits32(f32(a[0]) / f32(a[1])); });
  add("rcp.rn.f32", 1, {floats()}, [](Args a) { return bits32(1.0f / f32(a[0])); });
  add("sqrt.rn.f32", 1, {floats()}, [](Args a) { return bits32(std::sqrt(f32(a[0]))); });
  add("sqrt.rn.ftz.f32", 1, {floats()},
      [](Args a) { return bits32(flushed(std::sqrt(flushed(f32(a[0]))))); });
  add("min.NaN.f32", 2, pairs, [](Args a) {
    const float x = f32(a[0]), y = f32(a[1]);
    if (std::isunordered(x, y))
      return uint64_t(0x7fffffff);
    return bits32(x == y ? (std::signbit(x) ? x : y) : std::fmin(x, y));
  });
  add("tanh.approx.f32", 1, {randomFloats(256, 9, -12, 6)},
      [](Args a) { return bits32(float(std::tanh(double(f32(a[0]))))); },
      {Tolerance::Kind::Relative, 0x1p-10});
  // Division by huge numbers is 0 in div.approx.
  add("div.approx.ftz.f32_huge", 2, crossed({{0x3f800000, 0xc0000000, 0x7f000000}, {0x7f000001, 0xff7fffff}}),
      [](Args a) { return uint64_t((a[0] ^ a[1]) & 0x80000000); });
  cases.back().ptx.replace(cases.back().ptx.find("_huge"), 5, "");

  auto wide = [&](const char *name, size_t arguments, std::function<double(double, double, double)> f) {
    Elementwise e;
    e.name = name;
    e.instruction = std::string(name) + " $0";
    for (size_t i = 1; i <= arguments; ++i)
      e.instruction += ", $" + std::to_string(i);
    e.instruction += ";";
    e.argument_bits.assign(arguments, 64);
    e.result_bits = 64;
    const std::vector<uint64_t> v = {0,
                                     0x8000000000000000,
                                     0x3ff0000000000000,
                                     0xc00921fb54442d18,
                                     0x0000000000000001,
                                     0x7fefffffffffffff,
                                     0x3ca0000000000001};
    e.arguments = crossed(std::vector<std::vector<uint64_t>>(arguments, v));
    e.expect = [=](Args a) {
      double x[3] = {};
      for (size_t i = 0; i < a.size(); ++i)
        x[i] = std::bit_cast<double>(a[i]);
      return std::bit_cast<uint64_t>(f(x[0], x[1], x[2]));
    };
    cases.push_back(elementwise(e));
  };
  wide("add.f64", 2, [](double a, double b, double) { return a + b; });
  wide("mul.f64", 2, [](double a, double b, double) { return a * b; });
  wide("fma.rn.f64", 3, [](double a, double b, double c) { return std::fma(a, b, c); });
}

} // namespace flashplus::emu::test
