// SPDX-License-Identifier: BSD-3-Clause
#include "ir/mma.h"

#include "ir/ptx.h"

using namespace mlir;

namespace flashplus::gpu {

namespace {

Vals unpack(Ir &ir, Value aggregate, int count) {
  Vals values;
  for (int i = 0; i < count; ++i)
    values.push_back(ir.wrap(LLVM::ExtractValueOp::create(ir.builder, ir.loc, aggregate, i)));
  return values;
}

Type structOf(Type element, int count) {
  return LLVM::LLVMStructType::getLiteral(element.getContext(), SmallVector<Type>(count, element));
}

} // namespace

Vals loadMatrix4(Ir &ir, Val shared, bool transposed) {
  MLIRContext *context = ir.builder.getContext();
  auto op =
      NVVM::LdMatrixOp::create(ir.builder, ir.loc, structOf(ir.i32(), 4), shared.value, 4,
                               transposed ? NVVM::MMALayout::col : NVVM::MMALayout::row,
                               NVVM::LdStMatrixShapeAttr::get(context, 8, 8), NVVM::LdStMatrixEltType::B16);
  return unpack(ir, op.getRes(), 4);
}

Val transposeMatrix(Ir &ir, Val pairs) {
  return ptx(ir, "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r", {ir.i32()}, {pairs})[0];
}

Vals mma16816(Ir &ir, DType dtype, const Vals &a, const Vals &b, const Vals &c) {
  const bool half = dtype == DType::F16;
  Vals operands;
  Type pair = ir.vec(ir.builder.getF16Type(), 2);
  for (const Vals *part : {&a, &b})
    for (Val v : *part)
      operands.push_back(half ? ir.bitcast(pair, v) : v);
  operands.insert(operands.end(), c.begin(), c.end());
  // The intrinsics are named by the types that the operands do not imply.
  Val d =
      ir.intrinsic(half ? "llvm.nvvm.mma.m16n8k16.row.col.f32.f32" : "llvm.nvvm.mma.m16n8k16.row.col.bf16",
                   structOf(ir.f32(), 4), operands);
  return unpack(ir, d.value, 4);
}

Val pack(Ir &ir, DType dtype, Val low, Val high) {
  const bool half = dtype == DType::F16;
  Type element = half ? Type(ir.builder.getF16Type()) : Type(ir.builder.getBF16Type());
  Val pair = ir.intrinsic(half ? "llvm.nvvm.ff2f16x2.rn" : "llvm.nvvm.ff2bf16x2.rn", ir.vec(element, 2),
                          {high, low});
  return ir.bitcast(ir.i32(), pair);
}

Val loadElement(Ir &ir, DType dtype, Val pointer) {
  if (dtype == DType::F32)
    return ir.load(ir.f32(), pointer, 4);
  const bool half = dtype == DType::F16;
  Type element = half ? Type(ir.builder.getF16Type()) : Type(ir.builder.getBF16Type());
  return ir.wrap(arith::ExtFOp::create(ir.builder, ir.loc, ir.f32(), ir.load(element, pointer, 2).value));
}

void storeElement(Ir &ir, DType dtype, Val value, Val pointer) {
  if (dtype == DType::F32)
    return ir.store(value, pointer, 4);
  Val packed = pack(ir, dtype, value, ir.f32(0));
  ir.store(ir.wrap(arith::TruncIOp::create(ir.builder, ir.loc, ir.i16(), packed.value)), pointer, 2);
}

} // namespace flashplus::gpu
