// SPDX-License-Identifier: BSD-3-Clause
#include "ir/ir.h"

#include <numbers>

using namespace mlir;

namespace flashplus {
namespace {

// `contract` lets the back end fuse a multiply and an add; nothing else may change the value.
constexpr arith::FastMathFlags kContract = arith::FastMathFlags::contract;

bool isFloat(Type type) { return isa<FloatType>(getElementTypeOrSelf(type)); }

/// Broadcasts a scalar that meets a vector.
void unify(Val &a, Val &b) {
  auto va = dyn_cast<VectorType>(a.type());
  auto vb = dyn_cast<VectorType>(b.type());
  if (va && !vb)
    b = a.ir->splat(b, int(va.getNumElements()));
  else if (vb && !va)
    a = a.ir->splat(a, int(vb.getNumElements()));
}

template <class IntOp, class FloatOp> Val arithmetic(Val a, Val b) {
  unify(a, b);
  Ir &ir = *a.ir;
  if (isFloat(a.type()))
    return ir.wrap(ir.builder.createOrFold<FloatOp>(ir.loc, a.value, b.value, kContract));
  return ir.wrap(ir.builder.createOrFold<IntOp>(ir.loc, a.value, b.value));
}

template <class IntOp> Val integer(Val a, Val b) {
  unify(a, b);
  return a.ir->wrap(a.ir->builder.createOrFold<IntOp>(a.ir->loc, a.value, b.value));
}

Val compare(Val a, Val b, arith::CmpIPredicate i, arith::CmpFPredicate f) {
  unify(a, b);
  Ir &ir = *a.ir;
  if (isFloat(a.type()))
    return ir.wrap(ir.builder.createOrFold<arith::CmpFOp>(ir.loc, f, a.value, b.value));
  return ir.wrap(ir.builder.createOrFold<arith::CmpIOp>(ir.loc, i, a.value, b.value));
}

} // namespace

Val literal(Val like, int64_t number) { return like.ir->constant(like.type(), number); }
Val literal(Val like, double number) { return like.ir->constant(like.type(), number); }

Val operator+(Val a, Val b) { return arithmetic<arith::AddIOp, arith::AddFOp>(a, b); }
Val operator-(Val a, Val b) { return arithmetic<arith::SubIOp, arith::SubFOp>(a, b); }
Val operator*(Val a, Val b) { return arithmetic<arith::MulIOp, arith::MulFOp>(a, b); }
Val operator/(Val a, Val b) { return arithmetic<arith::DivSIOp, arith::DivFOp>(a, b); }
Val operator%(Val a, Val b) { return integer<arith::RemSIOp>(a, b); }
Val operator&(Val a, Val b) { return integer<arith::AndIOp>(a, b); }
Val operator|(Val a, Val b) { return integer<arith::OrIOp>(a, b); }
Val operator^(Val a, Val b) { return integer<arith::XOrIOp>(a, b); }
Val operator<(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::slt, arith::CmpFPredicate::OLT); }
Val operator<=(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::sle, arith::CmpFPredicate::OLE); }
Val operator>(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::sgt, arith::CmpFPredicate::OGT); }
Val operator>=(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::sge, arith::CmpFPredicate::OGE); }
Val operator==(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::eq, arith::CmpFPredicate::OEQ); }
Val operator!=(Val a, Val b) { return compare(a, b, arith::CmpIPredicate::ne, arith::CmpFPredicate::UNE); }
Negation operator!(Val a) { return {a == a.ir->boolean(false)}; }

namespace {

/// A constant of `type` whose elements are `element`.
Val splatConstant(Ir &ir, Type type, TypedAttr element) {
  if (auto vector = dyn_cast<VectorType>(type))
    element = DenseElementsAttr::get(vector, Attribute(element));
  return ir.wrap(arith::ConstantOp::create(ir.builder, ir.loc, element));
}

} // namespace

Val Ir::constantInteger(Type type, int64_t value) {
  if (isFloat(type))
    return constantFloat(type, double(value));
  return splatConstant(*this, type, builder.getIntegerAttr(getElementTypeOrSelf(type), value));
}

Val Ir::constantFloat(Type type, double value) {
  assert(isFloat(type) && "a fraction does not meet an integer");
  return splatConstant(*this, type, builder.getFloatAttr(getElementTypeOrSelf(type), value));
}

Val Ir::negativeInfinity(Type type) { return constant(type, -std::numeric_limits<double>::infinity()); }

Val Ir::splat(Val scalar, int count) {
  return wrap(builder.createOrFold<vector::BroadcastOp>(loc, vec(scalar.type(), count), scalar.value));
}

Val Ir::toI64(Val v) {
  return v.type().isInteger(64) ? v : wrap(builder.createOrFold<arith::ExtSIOp>(loc, i64(), v.value));
}

Val Ir::toI32(Val v) {
  return v.type().isInteger(32) ? v : wrap(builder.createOrFold<arith::TruncIOp>(loc, i32(), v.value));
}

Val Ir::toFloat(Val v) {
  Type type = f32();
  if (auto vector = dyn_cast<VectorType>(v.type()))
    type = vector.clone(f32());
  return wrap(builder.createOrFold<arith::SIToFPOp>(loc, type, v.value));
}

Val Ir::bitcast(Type type, Val v) { return wrap(LLVM::BitcastOp::create(builder, loc, type, v.value)); }

Val Ir::min(Val a, Val b) { return integer<arith::MinSIOp>(a, b); }
Val Ir::max(Val a, Val b) { return integer<arith::MaxSIOp>(a, b); }
Val Ir::minUnsigned(Val a, Val b) { return integer<arith::MinUIOp>(a, b); }

Val Ir::fmax(Val a, Val b) {
  unify(a, b);
  // x86 has max(a, b) = a > b ? a : b as one instruction; maxnum would need a blend for NaN besides.
  if (!gpu)
    return select(a > b, a, b);
  return wrap(builder.createOrFold<arith::MaxNumFOp>(loc, a.value, b.value));
}

Val Ir::fma(Val a, Val b, Val c) {
  unify(a, b);
  unify(a, c);
  return wrap(LLVM::FMAOp::create(builder, loc, a.value, b.value, c.value));
}

Val Ir::select(Val condition, Val yes, Val no) {
  unify(yes, no);
  return wrap(builder.createOrFold<arith::SelectOp>(loc, condition.value, yes.value, no.value));
}

Val Ir::exp2(Val x) {
  if (gpu)
    return intrinsic("llvm.nvvm.ex2.approx.ftz.f", f32(), {x});
  // 2^x = 2^n p(r) with n = round(x) and r in [-0.5, 0.5]. p has degree 5, p(0) = 1 and the least relative
  // error there, 2^-23.4 (found by reweighted least squares); with the roundings of its evaluation 2^-22.5.
  Type type = x.type();
  auto vector = dyn_cast<VectorType>(type);
  Type integers = vector ? Type(vector.clone(i32())) : i32();
  // Adding 1.5 * 2^23 rounds to an integer in the low bits of the mantissa; 127 more makes that the exponent
  // field of 2^n.
  Val magic = constant(type, 12582912.0 + 127);
  auto plain = arith::FastMathFlags::none; // the two must not be folded into nothing
  Val shifted = wrap(arith::AddFOp::create(builder, loc, x.value, magic.value, plain));
  Val whole = wrap(arith::SubFOp::create(builder, loc, shifted.value, magic.value, plain));
  Val r = x - whole;
  constexpr double kCoefficients[] = {0.0013264727377805382, 0.009671512835133572, 0.0555073374460542,
                                      0.24022242082383527,   0.6931469775973303,   1.0};
  Val p = constant(type, kCoefficients[0]);
  for (size_t i = 1; i < std::size(kCoefficients); ++i)
    p = fma(p, r, constant(type, kCoefficients[i]));
  Val scale = bitcast(type, wrap(arith::ShLIOp::create(builder, loc, bitcast(integers, shifted).value,
                                                       constant(integers, 23).value)));
  // Below the normal numbers the result is 0, as with flush-to-zero; p is NaN for a NaN.
  return select(x < constant(type, -126.0), constant(type, 0), p * scale);
}

Val Ir::log2(Val x) {
  if (gpu)
    return intrinsic("llvm.nvvm.lg2.approx.ftz.f", f32(), {x});
  Val ln = wrap(math::LogOp::create(builder, loc, x.value)); // expanded by the polynomial pass
  return ln * std::numbers::log2e;
}

Val Ir::rcp(Val x) {
  if (gpu)
    return intrinsic("llvm.nvvm.rcp.approx.ftz.f", f32(), {x});
  return constant(x.type(), 1) / x;
}

Vals Ir::forLoop(Val begin, Val end, Val step, const Vals &inits,
                 llvm::function_ref<Vals(Val, const Vals &)> body) {
  SmallVector<Value> init_values;
  for (Val v : inits)
    init_values.push_back(v.value);
  auto loop = scf::ForOp::create(
      builder, loc, begin.value, end.value, step.value, init_values,
      [&](OpBuilder &, Location, Value index, ValueRange carried) {
        Vals vals;
        for (Value v : carried)
          vals.push_back(wrap(v));
        // `builder` is the nested builder's twin: both insert where the region builder stands.
        OpBuilder::InsertionGuard guard(builder);
        Block *block = cast<BlockArgument>(index).getOwner();
        builder.setInsertionPointToEnd(block);
        SmallVector<Value> results;
        for (Val v : body(wrap(index), vals))
          results.push_back(v.value);
        scf::YieldOp::create(builder, loc, results);
      });
  Vals results;
  for (Value v : loop.getResults())
    results.push_back(wrap(v));
  return results;
}

void Ir::forLoop(Val begin, Val end, Val step, llvm::function_ref<void(Val)> body) {
  forLoop(begin, end, step, {}, [&](Val index, const Vals &) -> Vals {
    body(index);
    return {};
  });
}

void Ir::rareLoop(Val begin, Val end, Val step, llvm::function_ref<void(Val)> body) {
  auto loop = scf::ForOp::create(builder, loc, begin.value, end.value, step.value, ValueRange(),
                                 [&](OpBuilder &, Location, Value index, ValueRange) {
                                   OpBuilder::InsertionGuard guard(builder);
                                   builder.setInsertionPointToEnd(cast<BlockArgument>(index).getOwner());
                                   body(wrap(index));
                                   scf::YieldOp::create(builder, loc);
                                 });
  MLIRContext *context = builder.getContext();
  const auto yes = builder.getBoolAttr(true);
  const auto unroll = LLVM::LoopUnrollAttr::get(context, yes, {}, {}, {}, {}, {}, {});
  const auto licm = LLVM::LoopLICMAttr::get(context, yes, {});
  // The lowering hands the attribute to the branch at the loop's end, whose own it then is.
  loop->setAttr("loop_annotation", LLVM::LoopAnnotationAttr::get(context, {}, {}, {}, unroll, {}, licm, {},
                                                                 {}, {}, {}, {}, {}, {}, {}, {}));
}

Vals Ir::whileLoop(const Vals &inits, llvm::function_ref<Val(const Vals &)> more,
                   llvm::function_ref<Vals(const Vals &)> body) {
  SmallVector<Value> values;
  for (Val v : inits)
    values.push_back(v.value);
  const SmallVector<Type> types(ValueRange(values).getTypes());
  auto wrapped = [&](ValueRange range) {
    Vals vals;
    for (Value v : range)
      vals.push_back(wrap(v));
    return vals;
  };
  auto unwrapped = [](const Vals &vals) {
    SmallVector<Value> out;
    for (Val v : vals)
      out.push_back(v.value);
    return out;
  };
  auto loop = scf::WhileOp::create(
      builder, loc, types, values,
      [&](OpBuilder &, Location, ValueRange carried) {
        OpBuilder::InsertionGuard guard(builder);
        builder.setInsertionPointToEnd(cast<BlockArgument>(carried.front()).getOwner());
        Val condition = more(wrapped(carried));
        scf::ConditionOp::create(builder, loc, condition.value, carried);
      },
      [&](OpBuilder &, Location, ValueRange carried) {
        OpBuilder::InsertionGuard guard(builder);
        builder.setInsertionPointToEnd(cast<BlockArgument>(carried.front()).getOwner());
        scf::YieldOp::create(builder, loc, unwrapped(body(wrapped(carried))));
      });
  return wrapped(loop.getResults());
}

void Ir::ifThen(Val condition, llvm::function_ref<void()> body) {
  auto op = scf::IfOp::create(builder, loc, condition.value, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPoint(op.thenYield());
  body();
}

Vals Ir::ifElse(Val condition, llvm::function_ref<Vals()> yes, llvm::function_ref<Vals()> no) {
  // The result types are known only once a branch is built: build both into blocks first.
  auto buildInto = [&](Region &region, llvm::function_ref<Vals()> body) {
    OpBuilder::InsertionGuard guard(builder);
    builder.createBlock(&region);
    SmallVector<Value> values;
    for (Val v : body())
      values.push_back(v.value);
    scf::YieldOp::create(builder, loc, values);
    return SmallVector<Type>(ValueRange(values).getTypes());
  };
  OperationState state(loc, scf::IfOp::getOperationName());
  state.addOperands(condition.value);
  Region *then_region = state.addRegion();
  Region *else_region = state.addRegion();
  // Values made inside must see the enclosing block's values only, which SSA checks after the op is inserted.
  SmallVector<Type> types = buildInto(*then_region, yes);
  buildInto(*else_region, no);
  state.addTypes(types);
  mlir::Operation *op = builder.create(state);
  Vals results;
  for (Value v : op->getResults())
    results.push_back(wrap(v));
  return results;
}

Val Ir::offset(Val pointer, Val bytes) {
  return wrap(LLVM::GEPOp::create(builder, loc, pointer.type(), builder.getI8Type(), pointer.value,
                                  ArrayRef<LLVM::GEPArg>{bytes.value}));
}

Val Ir::offset(Val pointer, int64_t bytes) {
  if (bytes == 0)
    return pointer;
  return wrap(LLVM::GEPOp::create(builder, loc, pointer.type(), builder.getI8Type(), pointer.value,
                                  ArrayRef<LLVM::GEPArg>{int32_t(bytes)}));
}

Val Ir::load(Type type, Val pointer, int alignment, bool invariant) {
  return wrap(LLVM::LoadOp::create(builder, loc, type, pointer.value, alignment, /*isVolatile=*/false,
                                   /*isNonTemporal=*/false, invariant));
}

void Ir::store(Val value, Val pointer, int alignment) {
  LLVM::StoreOp::create(builder, loc, value.value, pointer.value, alignment);
}

Val Ir::global(Val pointer) {
  return gpu ? wrap(LLVM::AddrSpaceCastOp::create(builder, loc, ptr(1), pointer.value)) : pointer;
}

Val Ir::isNull(Val pointer) {
  Value zero = LLVM::ZeroOp::create(builder, loc, pointer.type());
  return wrap(LLVM::ICmpOp::create(builder, loc, LLVM::ICmpPredicate::eq, pointer.value, zero));
}

Val Ir::intrinsic(StringRef name, Type result, const Vals &operands) {
  SmallVector<Value> values;
  for (Val v : operands)
    values.push_back(v.value);
  auto id = builder.getStringAttr(name);
  if (result)
    return wrap(LLVM::CallIntrinsicOp::create(builder, loc, result, id, values).getResult(0));
  LLVM::CallIntrinsicOp::create(builder, loc, id, values);
  return {};
}

Val ParamReader::get(std::string_view name, int index) const {
  for (const ParamInfo &field : table_) {
    if (field.name != name)
      continue;
    assert(index < field.count);
    Type type;
    int bytes = 4;
    switch (field.type) {
    case ParamType::Ptr:
      type = ir_.ptr(ir_.gpu ? 1 : 0);
      bytes = 8;
      break;
    case ParamType::I64:
      type = ir_.i64();
      bytes = 8;
      break;
    case ParamType::I32:
      type = ir_.i32();
      break;
    case ParamType::F32:
      type = ir_.f32();
      break;
    }
    return ir_.load(type, ir_.offset(pointer_, int64_t(field.offset) + int64_t(index) * bytes), bytes,
                    /*invariant=*/true);
  }
  assert(false && "no such parameter");
  return {};
}

} // namespace flashplus
