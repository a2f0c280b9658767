// SPDX-License-Identifier: BSD-3-Clause
// Ir: a thin layer over OpBuilder in which templates are written. A Val is an SSA value that knows its
// builder, so that address and softmax arithmetic read like formulas; the same formula works on a scalar (GPU
// thread) and on a vector (CPU). Everything folds constants as it builds.
#pragma once

#include "ir/pch.h"
#include "spec/params.h"
#include "spec/target.h"

namespace flashplus {

class Ir;

/// An SSA value. Arithmetic needs two values of one type; a C++ number takes the other's type: an integer
/// meets any, a floating-point number only floats. A scalar meeting a vector is broadcast.
struct Val {
  mlir::Value value;
  Ir *ir = nullptr;

  mlir::Type type() const { return value.getType(); }
  explicit operator bool() const { return bool(value); } ///< Whether there is a value, for parts that may be
                                                         ///< absent.
  bool absent() const { return !value; }
};

/// What `!x` makes. Not a Val, so that `if (!x)`, which would ask whether there is a value and emit code,
/// does not compile.
struct Negation {
  Val value;
  operator Val() const { return value; }
};

Val operator+(Val a, Val b);
Val operator-(Val a, Val b);
Val operator*(Val a, Val b);
Val operator/(Val a, Val b); ///< Signed for integers, rounding towards zero.
Val operator%(Val a, Val b); ///< Signed remainder.
Val operator&(Val a, Val b);
Val operator|(Val a, Val b);
Val operator^(Val a, Val b);
Val operator<(Val a, Val b); ///< Signed or ordered; gives i1.
Val operator<=(Val a, Val b);
Val operator>(Val a, Val b);
Val operator>=(Val a, Val b);
Val operator==(Val a, Val b);
Val operator!=(Val a, Val b);
Negation operator!(Val a); ///< Of an i1.

/// `number` as a constant of `like`'s type.
Val literal(Val like, int64_t number);
Val literal(Val like, double number);

/// A C++ number, on the right-hand side only; a bool is none.
template <class T>
concept Number = (std::integral<T> && !std::same_as<T, bool>) || std::floating_point<T>;
template <Number T> Val literalOf(Val like, T number) {
  if constexpr (std::integral<T>)
    return literal(like, int64_t(number));
  else
    return literal(like, double(number));
}
template <Number T> Val operator+(Val a, T b) { return a + literalOf(a, b); }
template <Number T> Val operator-(Val a, T b) { return a - literalOf(a, b); }
template <Number T> Val operator*(Val a, T b) { return a * literalOf(a, b); }
template <Number T> Val operator/(Val a, T b) { return a / literalOf(a, b); }
template <Number T> Val operator%(Val a, T b) { return a % literalOf(a, b); }
template <Number T> Val operator&(Val a, T b) { return a & literalOf(a, b); }
template <Number T> Val operator^(Val a, T b) { return a ^ literalOf(a, b); }
template <Number T> Val operator<(Val a, T b) { return a < literalOf(a, b); }
template <Number T> Val operator<=(Val a, T b) { return a <= literalOf(a, b); }
template <Number T> Val operator>(Val a, T b) { return a > literalOf(a, b); }
template <Number T> Val operator>=(Val a, T b) { return a >= literalOf(a, b); }
template <Number T> Val operator==(Val a, T b) { return a == literalOf(a, b); }
template <Number T> Val operator!=(Val a, T b) { return a != literalOf(a, b); }

using Vals = std::vector<Val>;

class Ir {
public:
  /// `lanes` is the fp32 width of a vector on a CPU and 0 on a GPU.
  Ir(mlir::OpBuilder &builder, mlir::Location loc, const Target &target)
      : builder(builder), loc(loc), gpu(isGpu(target.isa)), lanes(isaInfo(target.isa).vector_lanes),
        bf16_dot(isaInfo(target.isa).has(kBf16Dot)) {}

  mlir::OpBuilder &builder;
  mlir::Location loc;
  const bool gpu;
  const int lanes;
  const bool bf16_dot; ///< The CPU multiplies and converts bf16 (AVX512_BF16).
  /// The kernel may start while the one before it runs, so that no memory but its parameters is constant
  /// (ir/grid.h).
  bool overlaps = false;

  // Types.
  mlir::Type i1() { return builder.getI1Type(); }
  mlir::Type i16() { return builder.getI16Type(); }
  mlir::Type i32() { return builder.getI32Type(); }
  mlir::Type i64() { return builder.getI64Type(); }
  mlir::Type f32() { return builder.getF32Type(); }
  mlir::Type vec(mlir::Type element, int count) { return mlir::VectorType::get({count}, element); }
  mlir::Type ptr(unsigned address_space = 0) {
    return mlir::LLVM::LLVMPointerType::get(builder.getContext(), address_space);
  }

  // Constants.
  Val wrap(mlir::Value value) { return {value, this}; }
  Val i32(int64_t value) { return constant(i32(), value); }
  Val i64(int64_t value) { return constant(i64(), value); }
  Val f32(double value) { return constant(f32(), value); }
  Val boolean(bool value) { return constant(i1(), int64_t(value)); }
  /// A splat for a vector type. An integer makes a constant of any type, a floating-point number one of
  /// floats.
  template <Number T> Val constant(mlir::Type type, T value) {
    if constexpr (std::integral<T>)
      return constantInteger(type, int64_t(value));
    else
      return constantFloat(type, double(value));
  }
  Val negativeInfinity(mlir::Type type);

  // Conversions.
  Val splat(Val scalar, int count);
  Val toI64(Val v); ///< Sign extension; i64 stays.
  Val toI32(Val v); ///< Truncation; i32 stays.
  Val toFloat(Val v);
  Val bitcast(mlir::Type type, Val v);

  // Arithmetic beyond the operators.
  Val min(Val a, Val b); ///< Signed integers.
  Val max(Val a, Val b);
  Val minUnsigned(Val a, Val b);
  Val fmax(Val a, Val b); ///< A NaN operand loses against a number.
  Val fma(Val a, Val b, Val c);
  Val ceilDiv(Val a, int64_t b) { return (a + (b - 1)) / b; }
  Val select(Val condition, Val yes, Val no);
  Val exp2(Val x);  ///< 2^x for x < 127; relative error below 2^-21; 0 for -inf, NaN for NaN.
  Val log2(Val x);  ///< x > 0.
  Val rcp(Val x);   ///< 1/x within 1 ulp (GPU) or rounded (CPU).

  // Control flow. Bodies return the values of the next iteration or of the branch.
  Vals forLoop(Val begin, Val end, Val step, const Vals &inits,
               llvm::function_ref<Vals(Val index, const Vals &carried)> body);
  void forLoop(Val begin, Val end, Val step, llvm::function_ref<void(Val index)> body);
  /// A loop that runs seldom: neither LLVM nor the assembler unrolls it, and nothing is hoisted out of it to
  /// hold registers elsewhere.
  void rareLoop(Val begin, Val end, Val step, llvm::function_ref<void(Val index)> body);
  /// `inits` -> body(...) as long as more(...) holds; returns the last values.
  Vals whileLoop(const Vals &inits, llvm::function_ref<Val(const Vals &)> more,
                 llvm::function_ref<Vals(const Vals &)> body);
  void ifThen(Val condition, llvm::function_ref<void()> body);
  Vals ifElse(Val condition, llvm::function_ref<Vals()> yes, llvm::function_ref<Vals()> no);

  // Memory. Offsets are in bytes.
  Val offset(Val pointer, Val bytes);
  Val offset(Val pointer, int64_t bytes);
  Val load(mlir::Type type, Val pointer, int alignment = 0, bool invariant = false);
  void store(Val value, Val pointer, int alignment = 0);
  /// Pointer as an address-space-1 (global) pointer on a GPU; unchanged on a CPU.
  Val global(Val pointer);
  Val isNull(Val pointer);

  /// LLVM intrinsic by name.
  Val intrinsic(llvm::StringRef name, mlir::Type result, const Vals &operands);

private:
  Val constantInteger(mlir::Type type, int64_t value);
  Val constantFloat(mlir::Type type, double value);
};

/// The params struct as a kernel sees it: field by name, from the table in spec/params.h.
class ParamReader {
public:
  ParamReader(Ir &ir, Val pointer, std::span<const ParamInfo> table)
      : ir_(ir), pointer_(pointer), table_(table) {}

  /// Loads field `name`, element `index`. Pointers come as global pointers. The name must exist.
  Val get(std::string_view name, int index = 0) const;

private:
  Ir &ir_;
  Val pointer_;
  std::span<const ParamInfo> table_;
};

} // namespace flashplus
