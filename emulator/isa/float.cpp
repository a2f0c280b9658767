// SPDX-License-Identifier: BSD-3-Clause
// f32 and f64 arithmetic, packed and single halves, and the approximate functions.
#include "emulator/isa/float.h"
#include "emulator/isa/float_bits.h"
#include "emulator/isa/lanes.h"

namespace flashplus::emu {
namespace {

/// One operand or result, flushed if the instruction says so.
template <bool Ftz> float in32(float x) { return Ftz ? flush(x) : x; }
template <bool Ftz> float out32(float x) { return canonical(Ftz ? flush(x) : x); }

/// The smaller (or larger) of two: a NaN loses, -0 is below +0.
template <class T> T least(T a, T b) {
  if (a != a)
    return b;
  if (b != b)
    return a;
  if (a == b)
    return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T> T most(T a, T b) {
  if (a != a)
    return b;
  if (b != b)
    return a;
  if (a == b)
    return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

float fused(float a, float b, float c) { return std::fma(a, b, c); }

template <bool Ftz> Handler handler32(FloatOp op, bool nan, bool saturate) {
  using F = float;
  if (saturate) { // .sat: [0, 1], NaN becomes 0
    switch (op) {
    case FloatOp::Add:
      return lanewise<[](F a, F b) {
        return F(std::fmin(std::fmax(out32<Ftz>(in32<Ftz>(a) + in32<Ftz>(b)), 0.f), 1.f));
      },
                      F, F, F>;
    case FloatOp::Mul:
      return lanewise<[](F a, F b) {
        return F(std::fmin(std::fmax(out32<Ftz>(in32<Ftz>(a) * in32<Ftz>(b)), 0.f), 1.f));
      },
                      F, F, F>;
    case FloatOp::Fma:
      return lanewise<[](F a, F b, F c) {
        return F(std::fmin(std::fmax(out32<Ftz>(fused(in32<Ftz>(a), in32<Ftz>(b), in32<Ftz>(c))), 0.f), 1.f));
      },
                      F, F, F, F>;
    default:
      return nullptr;
    }
  }
  switch (op) {
  case FloatOp::Add:
    return lanewise<[](F a, F b) { return out32<Ftz>(in32<Ftz>(a) + in32<Ftz>(b)); }, F, F, F>;
  case FloatOp::Sub:
    return lanewise<[](F a, F b) { return out32<Ftz>(in32<Ftz>(a) - in32<Ftz>(b)); }, F, F, F>;
  case FloatOp::Mul:
    return lanewise<[](F a, F b) { return out32<Ftz>(in32<Ftz>(a) * in32<Ftz>(b)); }, F, F, F>;
  case FloatOp::Fma:
    return lanewise<[](F a, F b, F c) { return out32<Ftz>(fused(in32<Ftz>(a), in32<Ftz>(b), in32<Ftz>(c))); },
                    F, F, F, F>;
  case FloatOp::Min:
    return nan ? lanewise<[](F a, F b) {
      return a != a || b != b ? nan32() : out32<Ftz>(least(in32<Ftz>(a), in32<Ftz>(b)));
    },
                          F, F, F>
               : lanewise<[](F a, F b) { return out32<Ftz>(least(in32<Ftz>(a), in32<Ftz>(b))); }, F, F, F>;
  case FloatOp::Max:
    return nan ? lanewise<[](F a, F b) {
      return a != a || b != b ? nan32() : out32<Ftz>(most(in32<Ftz>(a), in32<Ftz>(b)));
    },
                          F, F, F>
               : lanewise<[](F a, F b) { return out32<Ftz>(most(in32<Ftz>(a), in32<Ftz>(b))); }, F, F, F>;
  case FloatOp::Neg: // a sign change, also of NaN
    return lanewise<[](F a) { return -in32<Ftz>(a); }, F, F>;
  case FloatOp::Abs:
    return lanewise<[](F a) { return std::fabs(in32<Ftz>(a)); }, F, F>;
  case FloatOp::Div: // div.full and div.approx for divisors of usual size
    return lanewise<[](F a, F b) { return out32<Ftz>(in32<Ftz>(a) / in32<Ftz>(b)); }, F, F, F>;
  case FloatOp::Rcp:
    return lanewise<[](F a) { return out32<Ftz>(1.0f / in32<Ftz>(a)); }, F, F>;
  case FloatOp::Sqrt:
    return lanewise<[](F a) { return out32<Ftz>(std::sqrt(in32<Ftz>(a))); }, F, F>;
  case FloatOp::Rsqrt:
    return lanewise<[](F a) { return out32<Ftz>(float(1.0 / std::sqrt(double(in32<Ftz>(a))))); }, F, F>;
  case FloatOp::Exp2:
    return lanewise<[](F a) { return out32<Ftz>(exp2Approx(in32<Ftz>(a))); }, F, F>;
  case FloatOp::Log2:
    return lanewise<[](F a) { return out32<Ftz>(log2Approx(in32<Ftz>(a))); }, F, F>;
  case FloatOp::Tanh:
    return lanewise<[](F a) { return tanhApprox(a); }, F, F>;
  case FloatOp::Sin:
    return lanewise<[](F a) { return out32<Ftz>(float(std::sin(double(in32<Ftz>(a))))); }, F, F>;
  case FloatOp::Cos:
    return lanewise<[](F a) { return out32<Ftz>(float(std::cos(double(in32<Ftz>(a))))); }, F, F>;
  }
  return nullptr;
}

/// div.approx: PTX ISA: for 2^126 < |b| < 2^128 the result is 0 of the right sign, or NaN for an infinite a.
template <bool Ftz> float divApprox(float a, float b) {
  a = in32<Ftz>(a), b = in32<Ftz>(b);
  if (const float size = std::fabs(b); size > 0x1p126f && size < std::numeric_limits<float>::infinity())
    return std::isinf(a) ? nan32() : out32<Ftz>(a * 0.0f * (std::signbit(b) ? -1.0f : 1.0f));
  return out32<Ftz>(a / b);
}

/// Directed rounding: slow and rare.
template <class T, bool Ftz> void runRounded(Warp &w, const Instruction &in, uint32_t mask) {
  const auto op = FloatOp(in.mode);
  const LaneOf<T> *s[3] = {};
  for (int i = 0; i < in.sources; ++i)
    s[i] = w.lanes<T>(in.src(i));
  LaneOf<T> out[kLanes] = {};
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    T v[3] = {};
    for (int i = 0; i < in.sources; ++i) {
      v[i] = fromLane<T>(s[i][lane]);
      if constexpr (Ftz)
        v[i] = flush(v[i]);
    }
    volatile T a = v[0], b = v[1], c = v[2];
    volatile T r = withRounding(Rounding(in.mode2), [&]() -> T {
      switch (op) {
      case FloatOp::Add:
        return a + b;
      case FloatOp::Sub:
        return a - b;
      case FloatOp::Mul:
        return a * b;
      case FloatOp::Fma:
        return std::fma(T(a), T(b), T(c));
      case FloatOp::Div:
        return a / b;
      case FloatOp::Rcp:
        return T(1) / a;
      default:
        return std::sqrt(T(a));
      }
    });
    T result = r;
    if constexpr (Ftz)
      result = flush(result);
    if constexpr (sizeof(T) == 4)
      result = canonical(result);
    out[lane] = toLane<T>(result);
  }
  w.store<T>(in.dst(), mask, out);
}

Handler handler64(FloatOp op) {
  using D = double;
  switch (op) {
  case FloatOp::Add:
    return lanewise<[](D a, D b) { return a + b; }, D, D, D>;
  case FloatOp::Sub:
    return lanewise<[](D a, D b) { return a - b; }, D, D, D>;
  case FloatOp::Mul:
    return lanewise<[](D a, D b) { return a * b; }, D, D, D>;
  case FloatOp::Fma:
    return lanewise<[](D a, D b, D c) { return std::fma(a, b, c); }, D, D, D, D>;
  case FloatOp::Min:
    return lanewise<[](D a, D b) { return least(a, b); }, D, D, D>;
  case FloatOp::Max:
    return lanewise<[](D a, D b) { return most(a, b); }, D, D, D>;
  case FloatOp::Neg:
    return lanewise<[](D a) { return -a; }, D, D>;
  case FloatOp::Abs:
    return lanewise<[](D a) { return std::fabs(a); }, D, D>;
  case FloatOp::Div:
    return lanewise<[](D a, D b) { return a / b; }, D, D, D>;
  case FloatOp::Rcp:
    return lanewise<[](D a) { return 1 / a; }, D, D>;
  case FloatOp::Sqrt:
    return lanewise<[](D a) { return std::sqrt(a); }, D, D>;
  default:
    return nullptr;
  }
}

// --- halves
// ----------------------------------------------------------------------------------------------------------
// f16 and bf16 values, one or two a register. A sum, product or fma is computed in double, where it is exact
// (fma of bf16: but for the last bits, far below half an ulp unless it cancels), and rounded once through
// float: 24 bits are more than twice 11 plus 2, so that rounding twice is innocuous for add, sub and mul; fma
// rounds from double directly.

template <bool Bf> float half(uint16_t x) { return Bf ? bfloatToFloat(x) : halfToFloat(x); }
/// Rounds a double to odd in float first, so that the second rounding is right.
float toOdd(double x) {
  float f = float(x);
  if (double(f) != x && f == f && !std::isinf(f)) {
    uint32_t bits = std::bit_cast<uint32_t>(f);
    if (std::fabs(double(f)) > std::fabs(x))
      --bits;
    bits |= 1;
    f = std::bit_cast<float>(bits);
  }
  return f;
}
template <bool Bf> uint16_t narrow(double x) { return Bf ? floatToBfloat(toOdd(x)) : floatToHalf(toOdd(x)); }

template <bool Bf> uint16_t halfOp(FloatOp op, uint16_t a, uint16_t b, uint16_t c) {
  const double x = half<Bf>(a), y = half<Bf>(b), z = half<Bf>(c);
  switch (op) {
  case FloatOp::Add:
    return narrow<Bf>(x + y);
  case FloatOp::Sub:
    return narrow<Bf>(x - y);
  case FloatOp::Mul:
    return narrow<Bf>(x * y);
  case FloatOp::Fma:
    return narrow<Bf>(x * y + z);
  case FloatOp::Min:
    return narrow<Bf>(least(x, y));
  case FloatOp::Max:
    return narrow<Bf>(most(x, y));
  case FloatOp::Neg:
    return uint16_t(a ^ 0x8000);
  case FloatOp::Abs:
    return uint16_t(a & 0x7fff);
  case FloatOp::Exp2:
    return narrow<Bf>(std::exp2(x));
  case FloatOp::Tanh:
    return narrow<Bf>(std::tanh(x));
  default:
    return 0x7fff;
  }
}

template <bool Bf> void runHalf(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *s[3];
  for (int i = 0; i < 3; ++i)
    s[i] = w.lanes<uint32_t>(in.src(std::min<int>(i, in.sources - 1)));
  const bool pair = in.mode2;
  uint32_t out[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const uint32_t a = s[0][lane], b = s[1][lane], c = s[2][lane];
    uint32_t r = halfOp<Bf>(FloatOp(in.mode), uint16_t(a), uint16_t(b), uint16_t(c));
    if (pair)
      r |= uint32_t(halfOp<Bf>(FloatOp(in.mode), uint16_t(a >> 16), uint16_t(b >> 16), uint16_t(c >> 16)))
           << 16;
    out[lane] = r;
  }
  w.store<uint32_t>(in.dst(), mask, out);
}

void operands(Builder &b, Type type, size_t sources) {
  b.wantOperands(sources + 1);
  b.dst(0, type);
  for (size_t i = 1; i <= sources; ++i)
    b.src(i, type);
}

bool isHalf(Type t) { return t == Type::F16 || t == Type::BF16 || t == Type::F16x2 || t == Type::BF16x2; }

/// ex2, lg2, sin, cos, tanh, rsqrt.
template <FloatOp Op> void decodeApproximate(Builder &b) {
  b.require("approx");
  const bool ftz = b.take("ftz");
  const Type type = b.type();
  b.out.op_class = OpClass::Special;
  if (isHalf(type) && (Op == FloatOp::Exp2 || Op == FloatOp::Tanh)) {
    if (ftz != (Op == FloatOp::Exp2 && (type == Type::BF16 || type == Type::BF16x2)))
      return b.fail(std::string(b.ast().opcode) + ": .ftz is for ex2 of bf16, which must have it");
    operands(b, type, 1);
    b.out.mode = uint8_t(Op);
    b.out.mode2 = type == Type::F16x2 || type == Type::BF16x2;
    b.out.run = type == Type::BF16 || type == Type::BF16x2 ? runHalf<true> : runHalf<false>;
    return;
  }
  if (type != Type::F32 || (ftz && Op == FloatOp::Tanh))
    return b.fail(std::string(b.ast().opcode) + " does not exist in this form");
  operands(b, type, 1);
  b.out.run = ftz ? handler32<true>(Op, false, false) : handler32<false>(Op, false, false);
}

} // namespace

void decodeFloat(Builder &b, FloatOp op, size_t sources) {
  const bool rounds = op == FloatOp::Add || op == FloatOp::Sub || op == FloatOp::Mul || op == FloatOp::Fma ||
                      op == FloatOp::Div || op == FloatOp::Rcp || op == FloatOp::Sqrt;
  const bool may_approximate = op == FloatOp::Div || op == FloatOp::Rcp || op == FloatOp::Sqrt;
  bool approximate = may_approximate && b.take("approx"), full = false;
  if (op == FloatOp::Div && !approximate)
    full = b.take("full");
  const int rounding = rounds && !approximate && !full ? b.takeAny({"rn", "rz", "rm", "rp"}) : -1;
  const bool ftz = b.take("ftz");
  const bool saturate = (op == FloatOp::Add || op == FloatOp::Mul || op == FloatOp::Fma) && b.take("sat");
  const bool nan = (op == FloatOp::Min || op == FloatOp::Max) && b.take("NaN");
  const Type type = b.type();
  const bool needs_rounding = op == FloatOp::Fma || (may_approximate && !approximate && !full);
  const std::string name(b.ast().opcode);
  if (needs_rounding && rounding < 0)
    return b.fail(name + ": a rounding (.rn, .rz, .rm, .rp) is missing");
  operands(b, type, sources);
  b.out.op_class = may_approximate ? OpClass::Special : OpClass::Float;
  b.out.mode = uint8_t(op);
  if (isHalf(type)) {
    if (may_approximate || rounding > 0 || saturate || nan)
      return b.fail(name + " does not exist in this form for ." + typeName(type));
    if (ftz)
      return b.fail(name + ".ftz for ." + typeName(type) + " is not modelled");
    b.out.mode2 = type == Type::F16x2 || type == Type::BF16x2;
    b.out.run = type == Type::BF16 || type == Type::BF16x2 ? runHalf<true> : runHalf<false>;
    return;
  }
  if (type == Type::F64) {
    if (approximate || full || ftz || saturate || nan)
      return b.fail(name + " does not exist in this form for .f64");
    b.out.run = rounding > 0 ? runRounded<double, false> : handler64(op);
    b.out.mode2 = uint8_t(std::max(rounding, 0));
    return;
  }
  if (type != Type::F32)
    return b.fail(name + " does not exist for ." + typeName(type));
  if (rounding > 0) {
    if (saturate)
      return b.fail(name + ".sat with directed rounding is not modelled");
    b.out.mode2 = uint8_t(rounding);
    b.out.run = ftz ? runRounded<float, true> : runRounded<float, false>;
  } else if (op == FloatOp::Div && approximate) {
    using F = float;
    b.out.run = ftz ? lanewise<[](F x, F y) { return divApprox<true>(x, y); }, F, F, F>
                    : lanewise<[](F x, F y) { return divApprox<false>(x, y); }, F, F, F>;
  } else {
    b.out.run = ftz ? handler32<true>(op, nan, saturate) : handler32<false>(op, nan, saturate);
  }
  if (!b.out.run)
    return b.fail(name + " does not exist in this form");
}

void addFloat(OpcodeTable &t) {
  t["fma"] = [](Builder &b) { decodeFloat(b, FloatOp::Fma, 3); };
  t["rcp"] = [](Builder &b) { decodeFloat(b, FloatOp::Rcp, 1); };
  t["sqrt"] = [](Builder &b) { decodeFloat(b, FloatOp::Sqrt, 1); };
  t["rsqrt"] = decodeApproximate<FloatOp::Rsqrt>;
  t["ex2"] = decodeApproximate<FloatOp::Exp2>;
  t["lg2"] = decodeApproximate<FloatOp::Log2>;
  t["tanh"] = decodeApproximate<FloatOp::Tanh>;
  t["sin"] = decodeApproximate<FloatOp::Sin>;
  t["cos"] = decodeApproximate<FloatOp::Cos>;
}

} // namespace flashplus::emu
