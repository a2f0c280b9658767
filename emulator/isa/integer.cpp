// SPDX-License-Identifier: BSD-3-Clause
// Integer arithmetic, logic, shifts and bit fields.
#include "emulator/isa/integer.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/lanes.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

template <class T> using Un = std::make_unsigned_t<T>;
/// A product or sum is computed without sign: signed overflow wraps in PTX. uint16_t would be promoted to
/// int.
template <class T> using Wrap = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
/// Twice as wide.
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <class T> T high(T a, T b) { return T((Wide<T>(a) * Wide<T>(b)) >> (sizeof(T) * 8)); }
template <class T> T low(T a, T b) { return T(Wrap<T>(a) * Wrap<T>(b)); }

template <class T> Handler binaryHandler(IntegerOp op) {
  switch (op) {
  case IntegerOp::Add:
    return lanewise<[](T a, T b) { return T(Wrap<T>(a) + Wrap<T>(b)); }, T, T, T>;
  case IntegerOp::Sub:
    return lanewise<[](T a, T b) { return T(Wrap<T>(a) - Wrap<T>(b)); }, T, T, T>;
  case IntegerOp::Min:
    return lanewise<[](T a, T b) { return a < b ? a : b; }, T, T, T>;
  case IntegerOp::Max:
    return lanewise<[](T a, T b) { return a > b ? a : b; }, T, T, T>;
  case IntegerOp::MinRelu: // not below 0
    return lanewise<[](T a, T b) { return std::max(a < b ? a : b, T(0)); }, T, T, T>;
  case IntegerOp::MaxRelu:
    return lanewise<[](T a, T b) { return std::max(a > b ? a : b, T(0)); }, T, T, T>;
  case IntegerOp::And:
    return lanewise<[](T a, T b) { return T(a & b); }, T, T, T>;
  case IntegerOp::Or:
    return lanewise<[](T a, T b) { return T(a | b); }, T, T, T>;
  case IntegerOp::Xor:
    return lanewise<[](T a, T b) { return T(a ^ b); }, T, T, T>;
  case IntegerOp::MulLow:
    return lanewise<[](T a, T b) { return low(a, b); }, T, T, T>;
  case IntegerOp::MulHigh:
    return lanewise<[](T a, T b) { return high(a, b); }, T, T, T>;
  case IntegerOp::Neg:
    return lanewise<[](T a) { return T(Wrap<T>(0) - Wrap<T>(a)); }, T, T>;
  case IntegerOp::Not:
    return lanewise<[](T a) { return T(~a); }, T, T>;
  case IntegerOp::Abs:
    return lanewise<[](T a) { return a < 0 ? T(Wrap<T>(0) - Wrap<T>(a)) : a; }, T, T>;
  case IntegerOp::MadLow:
    return lanewise<[](T a, T b, T c) { return T(Wrap<T>(low(a, b)) + Wrap<T>(c)); }, T, T, T, T>;
  case IntegerOp::MadHigh:
    return lanewise<[](T a, T b, T c) { return T(Wrap<T>(high(a, b)) + Wrap<T>(c)); }, T, T, T, T>;
  case IntegerOp::Shl:
    return lanewise<[](T a, uint32_t n) { return n >= sizeof(T) * 8 ? T(0) : T(Wrap<T>(a) << n); }, T, T,
                    uint32_t>;
  case IntegerOp::Shr:
    return lanewise<[](T a, uint32_t n) {
      return T(a >> std::min<uint32_t>(n, sizeof(T) * 8 - 1) >> (n >= sizeof(T) * 8));
    },
                    T, T, uint32_t>;
  }
  return nullptr;
}

/// Division: PTX leaves the result of a division by zero open, so no kernel may depend on it.
template <class T, bool Remainder> void divide(Warp &w, const Instruction &in, uint32_t mask) {
  const auto *a = w.lanes<T>(in.src(0)), *b = w.lanes<T>(in.src(1));
  LaneOf<T> out[kLanes] = {};
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    const T x = fromLane<T>(a[lane]), y = fromLane<T>(b[lane]);
    if (y == 0)
      return w.fault(FaultKind::Trap, "divides by zero, which has no defined result", int(lane));
    T result;
    if (std::is_signed_v<T> && y == T(-1))
      result = Remainder ? T(0) : T(Wrap<T>(0) - Wrap<T>(x));
    else
      result = Remainder ? T(x % y) : T(x / y);
    out[lane] = toLane<T>(result);
  }
  w.store<T>(in.dst(), mask, out);
}

// --- bits
// ----------------------------------------------------------------------------------------------------------

template <class T> T bitFieldExtract(T a, uint32_t position, uint32_t length) {
  // PTX ISA, bfe: position and length are taken modulo 256; past the top, the sign bit (or 0) is repeated.
  constexpr uint32_t kTop = sizeof(T) * 8 - 1;
  position &= 255, length &= 255;
  const bool sign =
      std::is_signed_v<T> && length != 0 && (Un<T>(a) >> std::min(position + length - 1, kTop) & 1);
  Un<T> out = 0;
  for (uint32_t i = 0; i <= kTop; ++i) {
    const bool bit = i < length && position + i <= kTop ? (Un<T>(a) >> (position + i) & 1) : sign;
    out |= Un<T>(bit) << i;
  }
  return T(out);
}

template <class T> T bitFieldInsert(T f, T b, uint32_t position, uint32_t length) {
  position &= 255, length &= 255;
  Un<T> out = Un<T>(b);
  for (uint32_t i = 0; i < length && position + i < sizeof(T) * 8; ++i) {
    out &= ~(Un<T>(1) << (position + i));
    out |= (Un<T>(f) >> i & 1) << (position + i);
  }
  return T(out);
}

uint32_t permuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = selector >> (4 * i) & 15;
    uint32_t byte = uint32_t(bytes >> (8 * (s & 7))) & 255;
    if (s & 8)
      byte = byte & 128 ? 255 : 0;
    out |= byte << (8 * i);
  }
  return out;
}

void runLop3(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *a = w.lanes<uint32_t>(in.src(0)), *b = w.lanes<uint32_t>(in.src(1)),
                 *c = w.lanes<uint32_t>(in.src(2));
  uint32_t out[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    uint32_t r = 0;
    for (int i = 0; i < 8; ++i)
      if (in.mode >> i & 1)
        r |= (i & 4 ? a[lane] : ~a[lane]) & (i & 2 ? b[lane] : ~b[lane]) & (i & 1 ? c[lane] : ~c[lane]);
    out[lane] = r;
  }
  w.store<uint32_t>(in.dst(), mask, out);
}

void decodeLop3(Builder &b) {
  b.require("b32");
  b.wantOperands(5);
  b.dst(0, Type::B32);
  for (size_t i = 1; i < 4; ++i)
    b.src(i, Type::B32);
  b.out.mode = uint8_t(b.constant(4, 0, 255));
  b.out.run = runLop3;
  b.out.op_class = OpClass::Integer;
}

void decodeShf(Builder &b) {
  const bool left = b.takeOneOf({"r", "l"}) == 1, wrap = b.takeOneOf({"clamp", "wrap"}) == 1;
  b.require("b32");
  b.wantOperands(4);
  b.dst(0, Type::B32);
  for (size_t i = 1; i < 4; ++i)
    b.src(i, Type::B32);
  b.out.op_class = OpClass::Integer;
  using U = uint32_t;
  if (left)
    b.out.run = wrap
                    ? lanewise<[](U a, U hi, U c) { return U(((uint64_t(hi) << 32 | a) << (c & 31)) >> 32); },
                               U, U, U, U>
                    : lanewise<[](U a, U hi, U c) {
                        c = std::min(c, 32u);
                        return c == 32 ? a : U(((uint64_t(hi) << 32 | a) << c) >> 32);
                      },
                               U, U, U, U>;
  else
    b.out.run =
        wrap ? lanewise<[](U a, U hi, U c) { return U((uint64_t(hi) << 32 | a) >> (c & 31)); }, U, U, U, U>
             : lanewise<[](U a, U hi, U c) { return U((uint64_t(hi) << 32 | a) >> std::min(c, 32u)); }, U, U,
                        U, U>;
}

template <bool Insert> void decodeBitField(Builder &b) {
  const Type type = b.type();
  const size_t values = Insert ? 2 : 1;
  if (typeBits(type) < 32 || isFloat(type) || (Insert && type != Type::B32 && type != Type::B64))
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.wantOperands(3 + values);
  b.dst(0, type);
  for (size_t i = 1; i <= values; ++i)
    b.src(i, type);
  b.src(values + 1, Type::U32);
  b.src(values + 2, Type::U32);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() {
    if constexpr (Insert)
      b.out.run = lanewise<[](T f, T x, uint32_t p, uint32_t n) { return bitFieldInsert(f, x, p, n); }, T, T,
                           T, uint32_t, uint32_t>;
    else
      b.out.run = lanewise<[](T a, uint32_t p, uint32_t n) { return bitFieldExtract(a, p, n); }, T, T,
                           uint32_t, uint32_t>;
  });
}

void decodePrmt(Builder &b) {
  b.require("b32");
  b.wantOperands(4);
  b.dst(0, Type::B32);
  for (size_t i = 1; i < 4; ++i)
    b.src(i, Type::B32);
  b.out.run = lanewise<[](uint32_t a, uint32_t c, uint32_t s) { return permuteBytes(a, c, s); }, uint32_t,
                       uint32_t, uint32_t, uint32_t>;
  b.out.op_class = OpClass::Integer;
}

enum class BitCount { Clz, Popc, Brev };
template <BitCount K> void decodeBitCount(Builder &b) {
  const Type type = b.type();
  if (type != Type::B32 && type != Type::B64)
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.wantOperands(2);
  b.dst(0, K == BitCount::Brev ? type : Type::U32);
  b.src(1, type);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() {
    if constexpr (std::is_unsigned_v<T> && sizeof(T) >= 4) {
      if constexpr (K == BitCount::Clz)
        b.out.run = lanewise<[](T a) { return uint32_t(std::countl_zero(a)); }, uint32_t, T>;
      else if constexpr (K == BitCount::Popc)
        b.out.run = lanewise<[](T a) { return uint32_t(std::popcount(a)); }, uint32_t, T>;
      else
        b.out.run = lanewise<[](T a) {
          T r = 0;
          for (size_t i = 0; i < sizeof(T) * 8; ++i)
            r |= (a >> i & 1) << (sizeof(T) * 8 - 1 - i);
          return r;
        },
                             T, T>;
    }
  });
}

// --- logic, also on predicates
// -----------------------------------------------------------------------------------

template <IntegerOp Op> void runPredicate(Warp &w, const Instruction &in, uint32_t mask) {
  uint32_t a = w.predicate(in.src(0));
  if (in.mode & 1)
    a = ~a;
  if constexpr (Op == IntegerOp::Not)
    return w.setPredicate(in.dst(), mask, ~a);
  uint32_t b = w.predicate(in.src(in.sources - 1));
  if (in.mode & 2)
    b = ~b;
  w.setPredicate(in.dst(), mask, Op == IntegerOp::And ? a & b : Op == IntegerOp::Or ? a | b : a ^ b);
}

template <IntegerOp Op> void decodeLogic(Builder &b) {
  const Type type = b.type();
  const size_t operands = Op == IntegerOp::Not ? 2 : 3;
  b.wantOperands(operands);
  b.out.op_class = OpClass::Integer;
  if (type == Type::Pred) {
    b.predDst(0);
    for (size_t i = 1; i < operands; ++i) {
      b.predSrc(i);
      b.out.mode |= uint8_t(b.negated_source << (i - 1));
    }
    b.out.run = runPredicate<Op>;
    return;
  }
  if (type != Type::B16 && type != Type::B32 && type != Type::B64)
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.dst(0, type);
  for (size_t i = 1; i < operands; ++i)
    b.src(i, type);
  withInteger(type, [&]<class T>() { b.out.run = binaryHandler<T>(Op); });
}

template <IntegerOp Op> void decodeShift(Builder &b) {
  const Type type = b.type();
  if (isFloat(type) || typeBits(type) < 16 ||
      (Op == IntegerOp::Shl && type != Type::B16 && type != Type::B32 && type != Type::B64))
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.wantOperands(3);
  b.dst(0, type);
  b.src(1, type);
  b.src(2, Type::U32);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() { b.out.run = binaryHandler<T>(Op); });
}

} // namespace

void decodeInteger(Builder &b, IntegerOp op, size_t sources) {
  const bool relu = (op == IntegerOp::Min || op == IntegerOp::Max) && b.take("relu");
  if (relu) {
    op = op == IntegerOp::Min ? IntegerOp::MinRelu : IntegerOp::MaxRelu;
    if (b.lastType() != Type::S32)
      return b.fail(std::string(b.ast().opcode) + ".relu exists for .s32");
  }
  const Type type = b.type();
  b.wantOperands(sources + 1);
  const bool signed_only = op == IntegerOp::Neg || op == IntegerOp::Abs;
  if (isFloat(type) || typeBits(type) < 16 || (signed_only && !isSigned(type)) || type == Type::B16 ||
      type == Type::B32 || type == Type::B64)
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.dst(0, type);
  for (size_t i = 1; i <= sources; ++i)
    b.src(i, type);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() { b.out.run = binaryHandler<T>(op); });
}

void decodeIntegerDivide(Builder &b, bool remainder) {
  const Type type = b.type();
  if (isFloat(type) || typeBits(type) < 16)
    return b.fail(std::string(b.ast().opcode) + " does not exist for ." + typeName(type));
  b.wantOperands(3);
  b.dst(0, type);
  b.src(1, type);
  b.src(2, type);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() { b.out.run = remainder ? divide<T, true> : divide<T, false>; });
}

void decodeMultiply(Builder &b, bool add) {
  const int part = b.takeOneOf({"lo", "hi", "wide"});
  if (part != 2)
    return decodeInteger(b,
                         part == 0 ? (add ? IntegerOp::MadLow : IntegerOp::MulLow)
                                   : (add ? IntegerOp::MadHigh : IntegerOp::MulHigh),
                         add ? 3 : 2);
  const Type type = b.type();
  const Type wide = type == Type::U16   ? Type::U32
                    : type == Type::S16 ? Type::S32
                    : type == Type::U32 ? Type::U64
                    : type == Type::S32 ? Type::S64
                                        : Type::None;
  if (wide == Type::None)
    return b.fail(std::string(b.ast().opcode) + ".wide does not exist for ." + typeName(type));
  b.wantOperands(add ? 4 : 3);
  b.dst(0, wide);
  b.src(1, type);
  b.src(2, type);
  if (add)
    b.src(3, wide);
  b.out.op_class = OpClass::Integer;
  withInteger(type, [&]<class T>() {
    if constexpr (sizeof(T) < 8) {
      using W = Wide<T>;
      b.out.run =
          add ? lanewise<[](T x, T y, W c) { return W(Wrap<W>(W(x) * W(y)) + Wrap<W>(c)); }, W, T, T, W>
              : lanewise<[](T x, T y) { return W(W(x) * W(y)); }, W, T, T>;
    }
  });
}

void addIntegerAndLogic(OpcodeTable &t) {
  t["and"] = decodeLogic<IntegerOp::And>;
  t["or"] = decodeLogic<IntegerOp::Or>;
  t["xor"] = decodeLogic<IntegerOp::Xor>;
  t["not"] = decodeLogic<IntegerOp::Not>;
  t["shl"] = decodeShift<IntegerOp::Shl>;
  t["shr"] = decodeShift<IntegerOp::Shr>;
  t["shf"] = decodeShf;
  t["bfe"] = decodeBitField<false>;
  t["bfi"] = decodeBitField<true>;
  t["prmt"] = decodePrmt;
  t["lop3"] = decodeLop3;
  t["clz"] = decodeBitCount<BitCount::Clz>;
  t["popc"] = decodeBitCount<BitCount::Popc>;
  t["brev"] = decodeBitCount<BitCount::Brev>;
  t["rem"] = [](Builder &b) { decodeIntegerDivide(b, true); };
}

} // namespace flashplus::emu
