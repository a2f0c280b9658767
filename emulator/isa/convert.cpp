// SPDX-License-Identifier: BSD-3-Clause
// cvt and cvt.pack-like forms with two sources.
#include "emulator/isa/builder.h"
#include "emulator/isa/float_bits.h"
#include "emulator/isa/lanes.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

/// Bits of `instruction.mode2`.
enum : uint8_t { kFtz = 1, kSat = 2, kRelu = 4 };

/// Low bits of a lane as a value of an integer type, extended to 64 bits.
uint64_t extend(uint64_t v, Type type) {
  const int unused = 64 - typeBits(type);
  return isSigned(type) ? uint64_t(int64_t(v << unused) >> unused) : v << unused >> unused;
}

template <class T> void limits(Type type, T &least, T &most) {
  const int bits = typeBits(type);
  least = isSigned(type) ? T(-std::ldexp(1.0, bits - 1)) : T(0);
  most = T(std::ldexp(1.0, bits - isSigned(type)));
}

struct Cvt {
  Type to, from;
  int rounding; ///< Index into rni rzi rmi rpi or rn rz rm rp.
  uint8_t flags;
};

/// Float -> integer: NaN gives 0 (as sm_80 and newer do), everything else is clamped.
uint64_t toInteger(double x, const Cvt &c) {
  if (x != x)
    return 0;
  switch (c.rounding) {
  case 0:
    x = std::nearbyint(x);
    break;
  case 1:
    x = std::trunc(x);
    break;
  case 2:
    x = std::floor(x);
    break;
  default:
    x = std::ceil(x);
  }
  double least, most;
  limits(c.to, least, most);
  if (x < least)
    x = least;
  if (x >= most)
    return extend(isSigned(c.to) ? (uint64_t(1) << (typeBits(c.to) - 1)) - 1 : ~uint64_t(0), c.to);
  return isSigned(c.to) ? uint64_t(int64_t(x)) : uint64_t(x);
}

uint64_t integerToInteger(uint64_t v, const Cvt &c) {
  v = extend(v, c.from);
  if (c.flags & kSat) {
    const bool negative = isSigned(c.from) && int64_t(v) < 0;
    const uint64_t most =
        isSigned(c.to) ? (uint64_t(1) << (typeBits(c.to) - 1)) - 1 : ~uint64_t(0) >> (64 - typeBits(c.to));
    if (negative) {
      const int64_t least = isSigned(c.to) ? -int64_t(most) - 1 : 0;
      v = uint64_t(std::max(int64_t(v), least));
    } else {
      v = std::min(v, most);
    }
  }
  return extend(v, c.to);
}

double fromFloatBits(uint64_t v, Type type, bool ftz) {
  switch (type) {
  case Type::F16:
    return halfToFloat(uint16_t(v));
  case Type::BF16:
    return bfloatToFloat(uint16_t(v));
  case Type::F32: {
    const float f = std::bit_cast<float>(uint32_t(v));
    return ftz ? flush(f) : f;
  }
  default:
    return std::bit_cast<double>(v);
  }
}

/// A double that is exact -> float bits, rounded once.
uint64_t toFloatBits(double x, const Cvt &c) {
  if (c.flags & kSat)
    x = x != x ? 0 : std::clamp(x, 0.0, 1.0);
  if ((c.flags & kRelu) && !(x > 0))
    x = x != x ? x : 0;
  const auto rounding = Rounding(c.rounding);
  switch (c.to) {
  case Type::F64:
    return std::bit_cast<uint64_t>(x);
  case Type::F32: {
    volatile double v = x;
    float f = withRounding(rounding, [&]() -> float { return float(v); });
    f = canonical(f);
    return std::bit_cast<uint32_t>(c.flags & kFtz ? flush(f) : f);
  }
  case Type::F16:
    return floatToHalf(float(x), rounding); // sources are floats or halves: exact in float
  default:
    return floatToBfloat(float(x), rounding);
  }
}

void runGeneral(Warp &w, const Instruction &in, uint32_t mask) {
  const Cvt c{Type(in.immediate & 255), Type(in.immediate >> 8 & 255), in.mode, in.mode2};
  uint64_t v[kLanes], out[kLanes] = {};
  w.widen(in.src(0), v);
  const bool float_from = isFloat(c.from), float_to = isFloat(c.to);
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!float_from && !float_to) {
      out[lane] = integerToInteger(v[lane], c);
    } else if (float_from && !float_to) {
      out[lane] = toInteger(fromFloatBits(v[lane], c.from, c.flags & kFtz), c);
    } else if (float_from) {
      double x = fromFloatBits(v[lane], c.from, c.flags & kFtz);
      if (c.to == c.from && in.mode < 4 && in.lane_bytes) // cvt.rni.f32.f32: to an integral value
        x = c.rounding == 0   ? std::nearbyint(x)
            : c.rounding == 1 ? std::trunc(x)
            : c.rounding == 2 ? std::floor(x)
                              : std::ceil(x);
      out[lane] = toFloatBits(x, c);
    } else {
      const uint64_t value = extend(v[lane], c.from);
      if (c.to == Type::F32 || c.to == Type::F64) {
        volatile uint64_t bits = value;
        out[lane] = withRounding(Rounding(c.rounding), [&]() -> uint64_t {
          if (c.to == Type::F64)
            return std::bit_cast<uint64_t>(isSigned(c.from) ? double(int64_t(bits)) : double(uint64_t(bits)));
          return std::bit_cast<uint32_t>(isSigned(c.from) ? float(int64_t(bits)) : float(uint64_t(bits)));
        });
        if ((c.flags & kSat) && c.to == Type::F32)
          out[lane] =
              std::bit_cast<uint32_t>(std::clamp(std::bit_cast<float>(uint32_t(out[lane])), 0.0f, 1.0f));
      } else {
        out[lane] = toFloatBits(isSigned(c.from) ? double(int64_t(value)) : double(value), c);
      }
    }
  }
  w.storeNarrow(in.dst(), mask, out);
}

/// cvt.rn.bf16x2.f32 d, a, b: a goes to the upper half.
template <bool Bf> void runPair(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *a = w.lanes<uint32_t>(in.src(0)), *b = w.lanes<uint32_t>(in.src(1));
  const auto rounding = Rounding(in.mode);
  uint32_t out[kLanes];
  auto one = [&](uint32_t bits) -> uint32_t {
    float x = std::bit_cast<float>(bits);
    if ((in.mode2 & kRelu) && x < 0)
      x = 0;
    uint16_t r = Bf ? floatToBfloat(x, rounding) : floatToHalf(x, rounding);
    if (in.mode2 & kSat) { // .satfinite: the largest finite value instead of infinity
      const uint16_t infinity = Bf ? 0x7f80 : 0x7c00;
      if ((r & 0x7fff) == infinity)
        r = uint16_t((r & 0x8000) | (infinity - 1));
    }
    return r;
  };
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    out[lane] = one(a[lane]) << 16 | one(b[lane]);
  w.store<uint32_t>(in.dst(), mask, out);
}

template <class T, class S> constexpr auto kExtend = [](S x) { return T(x); };

/// The conversions between integers that addresses are made of.
Handler fastInteger(Type to, Type from) {
  if (to == Type::S64 && from == Type::S32)
    return lanewise<kExtend<int64_t, int32_t>, int64_t, int32_t>;
  if (to == Type::U64 && from == Type::U32)
    return lanewise<kExtend<uint64_t, uint32_t>, uint64_t, uint32_t>;
  if (to == Type::U32 && from == Type::U64)
    return lanewise<kExtend<uint32_t, uint64_t>, uint32_t, uint64_t>;
  return nullptr;
}

void decodeCvt(Builder &b) {
  int rounding = b.takeAny({"rni", "rzi", "rmi", "rpi"});
  const bool integral = rounding >= 0;
  if (!integral)
    rounding = b.takeAny({"rn", "rz", "rm", "rp"});
  uint8_t flags = 0;
  if (b.take("relu"))
    flags |= kRelu;
  const bool finite = b.take("satfinite");
  if (b.take("relu"))
    flags |= kRelu;
  if (b.take("ftz"))
    flags |= kFtz;
  if (b.take("sat"))
    flags |= kSat;
  const Type to = b.type(), from = b.type();
  b.out.op_class = OpClass::Convert;
  b.out.mode2 = flags;
  if (to == Type::F16x2 || to == Type::BF16x2) {
    if (from != Type::F32 || integral || rounding < 0 || rounding > 1 || (flags & ~kRelu))
      return b.fail("cvt to ." + std::string(typeName(to)) + " does not exist in this form");
    b.wantOperands(3);
    b.dst(0, to);
    b.src(1, Type::F32);
    b.src(2, Type::F32);
    b.out.mode = uint8_t(rounding);
    b.out.mode2 |= finite ? kSat : 0;
    b.out.run = to == Type::BF16x2 ? runPair<true> : runPair<false>;
    return;
  }
  if (finite || from == Type::F16x2 || from == Type::BF16x2 || from == Type::Pred || to == Type::Pred)
    return b.fail("cvt in this form is not modelled");
  b.wantOperands(2);
  b.dst(0, to, true);
  b.src(1, from, true);
  const bool float_to = isFloat(to), float_from = isFloat(from);
  const bool narrows = float_to && float_from && typeBits(to) < typeBits(from);
  if (float_from && !float_to && !integral)
    return b.fail("cvt: a rounding to an integer (.rni, .rzi, .rmi, .rpi) is missing");
  if (((float_to && !float_from) || narrows ||
       (float_to && float_from && to != from && typeBits(to) == typeBits(from))) &&
      (integral || rounding < 0))
    return b.fail("cvt: a rounding (.rn, .rz, .rm, .rp) is missing");
  if (((!float_to && !float_from) && rounding >= 0) || (integral && !float_from))
    return b.fail("cvt: this conversion takes no rounding");
  if ((to == Type::F16 || to == Type::BF16) && rounding > 1)
    return b.fail("cvt to halves is modelled for .rn and .rz");
  if ((to == Type::F16 || to == Type::BF16) && (from == Type::F64 || (!float_from && typeBits(from) > 16)))
    return b.fail("cvt to halves from this type is not modelled");
  b.out.mode = uint8_t(std::max(rounding, 0));
  b.out.lane_bytes = integral && float_to;
  b.out.immediate = int64_t(to) | int64_t(from) << 8;
  b.out.run = runGeneral;
  if (!flags && b.exactWidth(0, to) && b.exactWidth(1, from))
    if (Handler fast = fastInteger(to, from))
      b.out.run = fast;
}

} // namespace

void addConvert(OpcodeTable &t) { t["cvt"] = decodeCvt; }

} // namespace flashplus::emu
