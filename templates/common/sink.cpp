// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/sink.h"

#include "templates/common/score.h"

namespace flashplus::softmax {
namespace {

Val widened(Ir &ir, DType dtype, Val pointer) {
  if (dtype == DType::F32)
    return ir.load(ir.f32(), pointer, 4);
  Val bits = ir.load(ir.i16(), pointer, 2);
  if (dtype == DType::F16) {
    Val half = ir.bitcast(ir.builder.getF16Type(), bits);
    return ir.wrap(mlir::arith::ExtFOp::create(ir.builder, ir.loc, ir.f32(), half.value));
  }
  Val wide = ir.wrap(mlir::arith::ExtUIOp::create(ir.builder, ir.loc, ir.i32(), bits.value));
  return ir.bitcast(ir.f32(),
                    ir.wrap(mlir::arith::ShLIOp::create(ir.builder, ir.loc, wide.value, ir.i32(16).value)));
}

} // namespace

std::optional<Sink> sinkOf(Ir &ir, const ParamReader &params, const SpecFields &spec, Val head) {
  if (!spec.hasSinks())
    return std::nullopt;
  const DType dtype = dtypeOf(spec.sinks);
  Val at = ir.offset(params.get("sinks"), ir.toI64(head) * dtypeBytes(dtype));
  return Sink{widened(ir, dtype, at) * kLog2E, params.get("sink_in_lse") != 0};
}

} // namespace flashplus::softmax
