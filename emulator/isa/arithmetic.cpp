// SPDX-License-Identifier: BSD-3-Clause
// Names that integers and floats share, comparisons and selections.
#include "emulator/isa/builder.h"
#include "emulator/isa/float.h"
#include "emulator/isa/float_bits.h"
#include "emulator/isa/integer.h"
#include "emulator/isa/lanes.h"

namespace flashplus::emu {
namespace {

template <IntegerOp I, FloatOp F, size_t Sources> void decodeEither(Builder &b) {
  if (isFloat(b.lastType()))
    decodeFloat(b, F, Sources);
  else
    decodeInteger(b, I, Sources);
}

void decodeMul(Builder &b) {
  if (isFloat(b.lastType()))
    decodeFloat(b, FloatOp::Mul, 2);
  else
    decodeMultiply(b, false);
}

void decodeMad(Builder &b) {
  if (isFloat(b.lastType()))
    decodeFloat(b, FloatOp::Fma, 3); // on sm_20 and newer mad.f32 is fma
  else
    decodeMultiply(b, true);
}

void decodeDiv(Builder &b) {
  if (isFloat(b.lastType()))
    decodeFloat(b, FloatOp::Div, 2);
  else
    decodeIntegerDivide(b, false);
}

// --- setp, selp
// ------------------------------------------------------------------------------------------------------

enum Compare : uint8_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kLo,
  kLs,
  kHi,
  kHs,
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,
  kNum,
  kNan
};
constexpr std::initializer_list<std::string_view> kCompareNames = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",
                                                                   "lo",  "ls",  "hi",  "hs",  "equ", "neu",
                                                                   "ltu", "leu", "gtu", "geu", "num", "nan"};
enum Combine : uint8_t { kNone, kAnd, kOr, kXor };

template <class T, class F> uint32_t compareLanes(const LaneOf<T> *a, const LaneOf<T> *b, F f) {
  uint32_t bits = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    bits |= uint32_t(f(fromLane<T>(a[lane]), fromLane<T>(b[lane]))) << lane;
  return bits;
}

template <class T, bool Ftz> uint32_t compare(uint8_t op, const LaneOf<T> *a, const LaneOf<T> *b) {
  auto value = [](T x) {
    if constexpr (Ftz)
      return flush(x);
    else
      return x;
  };
  auto run = [&](auto f) { return compareLanes<T>(a, b, [&](T x, T y) { return f(value(x), value(y)); }); };
  const auto unordered = [](T x, T y) { return x != x || y != y; };
  switch (op) {
  case kEq:
    return run([](T x, T y) { return x == y; });
  case kNe:
    return run([&](T x, T y) { return x != y && !unordered(x, y); });
  case kLt:
  case kLo:
    return run([](T x, T y) { return x < y; });
  case kLe:
  case kLs:
    return run([](T x, T y) { return x <= y; });
  case kGt:
  case kHi:
    return run([](T x, T y) { return x > y; });
  case kGe:
  case kHs:
    return run([](T x, T y) { return x >= y; });
  case kEqu:
    return run([&](T x, T y) { return x == y || unordered(x, y); });
  case kNeu:
    return run([](T x, T y) { return x != y; });
  case kLtu:
    return run([](T x, T y) { return !(x >= y); });
  case kLeu:
    return run([](T x, T y) { return !(x > y); });
  case kGtu:
    return run([](T x, T y) { return !(x <= y); });
  case kGeu:
    return run([](T x, T y) { return !(x < y); });
  case kNum:
    return run([&](T x, T y) { return !unordered(x, y); });
  default:
    return run(unordered);
  }
}

template <class T, bool Ftz = false> void runSetp(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t bits = compare<T, Ftz>(in.mode, w.lanes<T>(in.src(0)), w.lanes<T>(in.src(1)));
  uint32_t p = bits, q = ~bits;
  if (const uint8_t combine = in.mode2 & 3) {
    uint32_t c = w.predicate(in.src(2));
    if (in.mode2 & 4)
      c = ~c;
    auto with = [&](uint32_t x) { return combine == kAnd ? x & c : combine == kOr ? x | c : x ^ c; };
    p = with(p), q = with(q);
  }
  w.setPredicate(in.dst(0), mask, p);
  if (in.destinations > 1)
    w.setPredicate(in.dst(1), mask, q);
}

void decodeSetp(Builder &b) {
  b.out.mode = uint8_t(b.takeOneOf(kCompareNames));
  const int combine = b.takeAny({"and", "or", "xor"}) + 1;
  const bool ftz = b.take("ftz");
  const Type type = b.type();
  b.wantOperands(combine ? 4 : 3);
  b.predDst(0);
  if (b.operand(0).second)
    b.predDst(*b.operand(0).second);
  b.src(1, type);
  b.src(2, type);
  b.out.mode2 = uint8_t(combine);
  if (combine) {
    b.predSrc(3);
    b.out.mode2 |= uint8_t(b.negated_source << 2);
  }
  b.out.op_class = isFloat(type) ? OpClass::Float : OpClass::Integer;
  const std::string name = "setp." + std::string(*(kCompareNames.begin() + b.out.mode));
  if (isFloat(type)) {
    if (b.out.mode >= kLo && b.out.mode <= kHs)
      return b.fail(name + " is for unsigned integers");
    if (type == Type::F32)
      b.out.run = ftz ? runSetp<float, true> : runSetp<float>;
    else if (type == Type::F64 && !ftz)
      b.out.run = runSetp<double>;
    else
      return b.fail(name + (ftz ? ".ftz." : ".") + typeName(type) + " is not modelled");
    return;
  }
  const bool is_bits = type == Type::B16 || type == Type::B32 || type == Type::B64;
  if (ftz || b.out.mode >= kEqu || (is_bits && b.out.mode > kNe) || (isSigned(type) && b.out.mode >= kLo) ||
      !withInteger(type, [&]<class T>() { b.out.run = runSetp<T>; }))
    return b.fail(name + " does not exist for ." + typeName(type));
}

template <class U> void runSelp(Warp &w, const Instruction &in, uint32_t mask) {
  const U *a = w.lanes<U>(in.src(0)), *b = w.lanes<U>(in.src(1));
  uint32_t p = w.predicate(in.src(2));
  if (in.mode)
    p = ~p;
  U out[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    out[lane] = p >> lane & 1 ? a[lane] : b[lane];
  w.store<U>(in.dst(), mask, out);
}

void decodeSelp(Builder &b) {
  const Type type = b.type();
  if (typeBits(type) < 16)
    return b.fail(std::string("selp does not exist for .") + typeName(type));
  b.wantOperands(4);
  b.dst(0, type);
  b.src(1, type);
  b.src(2, type);
  b.predSrc(3);
  b.out.mode = b.negated_source;
  b.out.run = typeBits(type) == 64 ? runSelp<uint64_t> : runSelp<uint32_t>;
  b.out.op_class = OpClass::Integer;
}

} // namespace

void addArithmetic(OpcodeTable &t) {
  t["add"] = decodeEither<IntegerOp::Add, FloatOp::Add, 2>;
  t["sub"] = decodeEither<IntegerOp::Sub, FloatOp::Sub, 2>;
  t["min"] = decodeEither<IntegerOp::Min, FloatOp::Min, 2>;
  t["max"] = decodeEither<IntegerOp::Max, FloatOp::Max, 2>;
  t["neg"] = decodeEither<IntegerOp::Neg, FloatOp::Neg, 1>;
  t["abs"] = decodeEither<IntegerOp::Abs, FloatOp::Abs, 1>;
  t["mul"] = decodeMul;
  t["mad"] = decodeMad;
  t["div"] = decodeDiv;
  t["setp"] = decodeSetp;
  t["selp"] = decodeSelp;
}

} // namespace flashplus::emu
