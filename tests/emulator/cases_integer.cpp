// SPDX-License-Identifier: BSD-3-Clause
#include "tests/emulator/cases.h"

#include <algorithm>
#include <bit>

namespace flashplus::emu::test {
namespace {

using Values = std::vector<uint64_t>;
using Args = std::span<const uint64_t>;
using i128 = __int128;

int64_t sx(uint64_t v, int bits) { return int64_t(v << (64 - bits)) >> (64 - bits); }
uint64_t zx(uint64_t v, int bits) { return v << (64 - bits) >> (64 - bits); }

/// Edges of a width, and some in between.
Values edges(int bits) {
  const uint64_t top = uint64_t(1) << (bits - 1);
  Values v = {0,
              1,
              2,
              7,
              top - 1,
              top,
              top + 1,
              zx(~uint64_t(0), bits),
              zx(~uint64_t(0) - 5, bits),
              zx(0x123456789abcdef5, bits)};
  return v;
}

struct Binary {
  const char *opcode;
  bool is_signed;
  int bits;
  std::function<i128(i128, i128)> f; ///< On values extended as `is_signed` says.
};

void addBinary(std::vector<Case> &cases, const Binary &b, int result_bits = 0) {
  const int bits = b.bits;
  const bool is_signed = b.is_signed;
  auto f = b.f;
  Elementwise e;
  e.name = b.opcode;
  e.instruction = std::string(b.opcode) + " $0, $1, $2;";
  e.argument_bits = {bits, bits};
  e.result_bits = result_bits ? result_bits : bits;
  e.arguments = crossed({edges(bits), edges(bits)});
  e.expect = [=](Args a) {
    const i128 x = is_signed ? i128(sx(a[0], bits)) : i128(zx(a[0], bits));
    const i128 y = is_signed ? i128(sx(a[1], bits)) : i128(zx(a[1], bits));
    return uint64_t(f(x, y));
  };
  cases.push_back(elementwise(e));
  Case &c = cases.back();
  if (c.name.find("relu") != std::string::npos) { // of sm_90 on
    c.least_chip = 90;
    c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90");
  }
}

} // namespace

void addIntegerCases(std::vector<Case> &cases) {
  auto add = [](i128 a, i128 b) { return a + b; };
  auto sub = [](i128 a, i128 b) { return a - b; };
  auto mul = [](i128 a, i128 b) { return i128((unsigned __int128)a * (unsigned __int128)b); };
  auto min = [](i128 a, i128 b) { return a < b ? a : b; };
  auto max = [](i128 a, i128 b) { return a > b ? a : b; };
  auto high32 = [](i128 a, i128 b) { return (a * b) >> 32; };
  auto high64 = [](i128 a, i128 b) { // by halves: the product of two 64-bit values needs 128 unsigned bits
    const bool negative = (a < 0) != (b < 0);
    unsigned __int128 x = (unsigned __int128)(a < 0 ? -a : a) * (unsigned __int128)(b < 0 ? -b : b);
    if (negative)
      x = ~x + 1;
    return i128(x >> 64);
  };
  for (const Binary &b : std::vector<Binary>{
           {"add.s16", true, 16, add},
           {"add.s32", true, 32, add},
           {"add.s64", true, 64, add},
           {"add.u32", false, 32, add},
           {"sub.s32", true, 32, sub},
           {"sub.u64", false, 64, sub},
           {"sub.u16", false, 16, sub},
           {"mul.lo.s32", true, 32, mul},
           {"mul.lo.u32", false, 32, mul},
           {"mul.lo.s64", true, 64, mul},
           {"mul.lo.u16", false, 16, mul},
           {"mul.hi.s32", true, 32, high32},
           {"mul.hi.u32", false, 32, high32},
           {"mul.hi.u64", false, 64, high64},
           {"mul.hi.s64", true, 64, high64},
           {"min.s32", true, 32, min},
           {"min.u32", false, 32, min},
           {"min.s64", true, 64, min},
           {"min.u16", false, 16, min},
           {"max.s32", true, 32, max},
           {"max.u32", false, 32, max},
           {"max.u64", false, 64, max},
           {"max.s16", true, 16, max},
           {"min.relu.s32", true, 32, [](i128 a, i128 b) { return std::max<i128>(std::min(a, b), 0); }},
           {"max.relu.s32", true, 32,
            [](i128 a, i128 b) {
              return std::max({a, b, i128(0)});
            }},
           {"and.b16", false, 16, [](i128 a, i128 b) { return a & b; }},
           {"and.b32", false, 32, [](i128 a, i128 b) { return a & b; }},
           {"or.b32", false, 32, [](i128 a, i128 b) { return a | b; }},
           {"or.b64", false, 64, [](i128 a, i128 b) { return a | b; }},
           {"xor.b32", false, 32, [](i128 a, i128 b) { return a ^ b; }}})
    addBinary(cases, b);
  addBinary(cases, {"mul.wide.s32", true, 32, mul}, 64);
  addBinary(cases, {"mul.wide.u32", false, 32, mul}, 64);
  addBinary(cases, {"mul.wide.u16", false, 16, mul}, 32);
  addBinary(cases, {"mul.wide.s16", true, 16, mul}, 32);

  auto elements = [&](Elementwise e) { cases.push_back(elementwise(e)); };
  for (auto [opcode, bits, is_signed, remainder] : {std::tuple{"div.s32", 32, true, false},
                                                    {"div.u32", 32, false, false},
                                                    {"rem.s32", 32, true, true},
                                                    {"rem.u32", 32, false, true},
                                                    {"div.s64", 64, true, false},
                                                    {"rem.u64", 64, false, true},
                                                    {"div.u16", 16, false, false}}) {
    Values divisors;
    for (uint64_t v : edges(bits))
      if (v && !(is_signed && sx(v, bits) == -1)) // -2^n / -1 overflows: not defined
        divisors.push_back(v);
    elements({opcode,
              std::string(opcode) + " $0, $1, $2;",
              {bits, bits},
              bits,
              crossed({edges(bits), divisors}),
              [=, b = bits, s = is_signed, r = remainder](Args a) -> uint64_t {
                if (s) {
                  const i128 x = sx(a[0], b), y = sx(a[1], b);
                  return uint64_t(r ? x % y : x / y);
                }
                const uint64_t x = zx(a[0], b), y = zx(a[1], b);
                return r ? x % y : x / y;
              },
              {}});
  }
  elements({"mad.lo.s32",
            "mad.lo.s32 $0, $1, $2, $3;",
            {32, 32, 32},
            32,
            crossed({edges(32), edges(32), {0, 9, 0x80000000}}),
            [](Args a) { return a[0] * a[1] + a[2]; },
            {}});
  elements({"mad.lo.s64",
            "mad.lo.s64 $0, $1, $2, $3;",
            {64, 64, 64},
            64,
            crossed({edges(64), edges(64), {0, 9}}),
            [](Args a) { return a[0] * a[1] + a[2]; },
            {}});
  elements({"mad.wide.s32",
            "mad.wide.s32 $0, $1, $2, $3;",
            {32, 32, 64},
            64,
            crossed({edges(32), edges(32), {1, ~uint64_t(0)}}),
            [](Args a) { return uint64_t(sx(a[0], 32) * sx(a[1], 32)) + a[2]; },
            {}});
  const Values shifts = {0, 1, 5, 15, 16, 31, 32, 33, 63, 64, 65, 255, 0xffffffff};
  for (int bits : {16, 32, 64}) {
    const std::string b = std::to_string(bits);
    elements({"shl.b" + b,
              "shl.b" + b + " $0, $1, $2;",
              {bits, 32},
              bits,
              crossed({edges(bits), shifts}),
              [bits](Args a) { return a[1] >= uint64_t(bits) ? 0 : a[0] << a[1]; },
              {}});
    elements({"shr.u" + b,
              "shr.u" + b + " $0, $1, $2;",
              {bits, 32},
              bits,
              crossed({edges(bits), shifts}),
              [bits](Args a) { return a[1] >= uint64_t(bits) ? 0 : zx(a[0], bits) >> a[1]; },
              {}});
    elements(
        {"shr.s" + b,
         "shr.s" + b + " $0, $1, $2;",
         {bits, 32},
         bits,
         crossed({edges(bits), shifts}),
         [bits](Args a) { return uint64_t(sx(a[0], bits) >> std::min<uint64_t>(a[1], uint64_t(bits - 1))); },
         {}});
    elements({"not.b" + b,
              "not.b" + b + " $0, $1;",
              {bits},
              bits,
              {edges(bits)},
              [](Args a) { return ~a[0]; },
              {}});
    elements({"neg.s" + b,
              "neg.s" + b + " $0, $1;",
              {bits},
              bits,
              {edges(bits)},
              [](Args a) { return 0 - a[0]; },
              {}});
    elements({"abs.s" + b,
              "abs.s" + b + " $0, $1;",
              {bits},
              bits,
              {edges(bits)},
              [bits](Args a) { return sx(a[0], bits) < 0 ? 0 - a[0] : a[0]; },
              {}});
  }
  // bfe, by the pseudo-code of the PTX ISA.
  for (bool is_signed : {false, true}) {
    const std::string name = is_signed ? "bfe.s32" : "bfe.u32";
    elements(
        {name,
         name + " $0, $1, $2, $3;",
         {32, 32, 32},
         32,
         crossed(
             {{0x12345678, 0x87654321, 0xffffffff}, {0, 1, 5, 28, 31, 32, 200}, {0, 1, 4, 8, 31, 32, 255}}),
         [is_signed](Args a) -> uint64_t {
           const uint64_t pos = a[1] & 255, len = a[2] & 255, msb = 31;
           uint64_t sbit = 0;
           if (is_signed && len)
             sbit = a[0] >> std::min(pos + len - 1, msb) & 1;
           uint64_t d = 0;
           for (uint64_t i = 0; i <= msb; ++i)
             d |= (i < len && pos + i <= msb ? a[0] >> (pos + i) & 1 : sbit) << i;
           return d;
         },
         {}});
  }
  elements({"bfi.b32",
            "bfi.b32 $0, $1, $2, $3, $4;",
            {32, 32, 32, 32},
            32,
            crossed({{0x12345678, 0xffffffff}, {0x0, 0xa5a5a5a5}, {0, 4, 31, 40}, {0, 1, 8, 32}}),
            [](Args a) -> uint64_t {
              uint64_t d = a[1];
              for (uint64_t i = 0; i < (a[3] & 255) && (a[2] & 255) + i <= 31; ++i) {
                d &= ~(uint64_t(1) << (a[2] + i));
                d |= (a[0] >> i & 1) << (a[2] + i);
              }
              return d;
            },
            {}});
  elements({"prmt.b32",
            "prmt.b32 $0, $1, $2, $3;",
            {32, 32, 32},
            32,
            crossed({{0x03828100}, {0xf7061504}, {0x3210, 0x7654, 0x0123, 0x6240, 0xba98, 0xfedc, 0x5410}}),
            [](Args a) -> uint64_t {
              const uint64_t bytes = a[1] << 32 | a[0];
              uint64_t d = 0;
              for (int i = 0; i < 4; ++i) {
                const uint64_t s = a[2] >> (4 * i) & 15;
                uint64_t byte = bytes >> (8 * (s & 7)) & 255;
                if (s & 8)
                  byte = byte & 128 ? 255 : 0;
                d |= byte << (8 * i);
              }
              return d;
            },
            {}});
  elements({"lop3.b32",
            "lop3.b32 $0, $1, $2, $3, 0xca;",
            {32, 32, 32},
            32,
            crossed({{0xf0f0f0f0, 5}, {0xcccccccc, 9}, {0xaaaaaaaa, 3}}),
            [](Args a) { return (a[0] & a[1]) | (~a[0] & a[2]); },
            {}});
  elements({"shf.l.wrap.b32",
            "shf.l.wrap.b32 $0, $1, $2, $3;",
            {32, 32, 32},
            32,
            crossed({{0x80000001}, {0x12345678}, {0, 1, 31, 32, 33}}),
            [](Args a) { return ((a[1] << 32 | a[0]) << (a[2] & 31)) >> 32; },
            {}});
  elements({"shf.r.clamp.b32",
            "shf.r.clamp.b32 $0, $1, $2, $3;",
            {32, 32, 32},
            32,
            crossed({{0x80000001}, {0x12345678}, {0, 1, 31, 32, 40}}),
            [](Args a) { return (a[1] << 32 | a[0]) >> std::min<uint64_t>(a[2], 32); },
            {}});
  elements({"clz.b32",
            "clz.b32 $0, $1;",
            {32},
            32,
            {edges(32)},
            [](Args a) { return uint64_t(std::countl_zero(uint32_t(a[0]))); },
            {}});
  elements({"popc.b64",
            "popc.b64 $0, $1;",
            {64},
            32,
            {edges(64)},
            [](Args a) { return uint64_t(std::popcount(a[0])); },
            {}});
  elements({"brev.b32",
            "brev.b32 $0, $1;",
            {32},
            32,
            {edges(32)},
            [](Args a) {
              uint64_t d = 0;
              for (int i = 0; i < 32; ++i)
                d |= (a[0] >> i & 1) << (31 - i);
              return d;
            },
            {}});
  // Comparisons, through selp.
  auto compare = [&](const char *op, const char *type, int bits, bool is_signed, auto f) {
    elements({std::string("setp.") + op + "." + type,
              std::string("setp.") + op + "." + type + " %p0, $1, $2; selp.b32 $0, 1, 0, %p0;",
              {bits, bits},
              32,
              crossed({edges(bits), edges(bits)}),
              [=](Args a) -> uint64_t {
                return is_signed ? f(i128(sx(a[0], bits)), i128(sx(a[1], bits)))
                                 : f(i128(zx(a[0], bits)), i128(zx(a[1], bits)));
              },
              {}});
  };
  for (auto [type, bits, is_signed] :
       {std::tuple{"s32", 32, true}, {"u32", 32, false}, {"s64", 64, true}, {"u16", 16, false}}) {
    compare("lt", type, bits, is_signed, [](i128 a, i128 b) { return a < b; });
    compare("le", type, bits, is_signed, [](i128 a, i128 b) { return a <= b; });
    compare("gt", type, bits, is_signed, [](i128 a, i128 b) { return a > b; });
    compare("ge", type, bits, is_signed, [](i128 a, i128 b) { return a >= b; });
  }
  compare("eq", "b64", 64, false, [](i128 a, i128 b) { return a == b; });
  compare("ne", "b32", 32, false, [](i128 a, i128 b) { return a != b; });
  compare("hi", "u32", 32, false, [](i128 a, i128 b) { return a > b; });
  elements({"setp.lt.and.s32",
            "setp.gt.s32 %p1, $1, 0; setp.lt.and.s32 %p0|%p2, $1, $2, !%p1; selp.b32 %r0, 1, 0, %p0; "
            "selp.b32 %r1, 2, 0, %p2; or.b32 $0, %r0, %r1;",
            {32, 32},
            32,
            crossed({edges(32), edges(32)}),
            [](Args a) -> uint64_t {
              const bool c = !(int32_t(a[0]) > 0), lt = int32_t(a[0]) < int32_t(a[1]);
              return uint64_t(lt && c) | uint64_t(!lt && c) << 1;
            },
            {}});
  elements({"pred_logic",
            "setp.gt.s32 %p1, $1, 0; setp.gt.s32 %p2, $2, 0; and.pred %p3, %p1, %p2; or.pred %p4, %p1, %p2; "
            "xor.pred %p5, %p1, %p2; not.pred %p6, %p1; selp.b32 %r0, 1, 0, %p3; selp.b32 %r1, 2, 0, %p4; "
            "selp.b32 %r2, 4, 0, %p5; selp.b32 %r3, 8, 0, %p6; or.b32 %r0, %r0, %r1; or.b32 %r2, %r2, %r3; "
            "or.b32 $0, %r0, %r2;",
            {32, 32},
            32,
            crossed({{1, 0xffffffff}, {1, 0xffffffff}}),
            [](Args a) -> uint64_t {
              const bool x = int32_t(a[0]) > 0, y = int32_t(a[1]) > 0;
              return uint64_t(x && y) | uint64_t(x || y) << 1 | uint64_t(x != y) << 2 | uint64_t(!x) << 3;
            },
            {}});
}

} // namespace flashplus::emu::test
