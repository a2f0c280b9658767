// SPDX-License-Identifier: BSD-3-Clause
// The emit half of the templates: from an attn operation to a kernel in arith, scf, vector and the target's
// dialects. Part of the compiler library; the plan half (plan.h) has no LLVM.
#pragma once

#include "ir/dialect/Attn.h"
#include "ir/ir.h"
#include "spec/artifact.h"

namespace flashplus {

/// What an emitter works with. The insertion point of `ir` is the start of the kernel's body.
struct EmitContext {
  Ir &ir;
  const KernelSpec &spec; ///< Without the score, which is `score`.
  const Schedule &schedule;
  const Target &target;
  mlir::Region *score; ///< Null for an operation without one.
  ParamReader params;
  Val work_item;   ///< i32
  Val tensor_maps; ///< Generic pointer to the launch schema's tensor maps; none without them.
  Val scratch;     ///< CPU: the worker's scratch. GPU: dynamic shared memory (address space 3).
};

/// Replaces `op` (attn.forward, attn.combine, ...) by an llvm.func of the name the op has.
Status expandKernel(mlir::Operation *op);

// The emitters, a row each in the table of emit.cpp.
void emitCpuFlash(EmitContext &context);
void emitCpuStream(EmitContext &context);
void emitDecode(EmitContext &context);
void emitSm80Flash(EmitContext &context);
void emitSm90Flash(EmitContext &context);
void emitCpuCombine(EmitContext &context);
void emitGpuCombine(EmitContext &context);
void emitCpuAppend(EmitContext &context);
void emitGpuAppend(EmitContext &context);
void emitCpuMerge(EmitContext &context);
void emitGpuMerge(EmitContext &context);
void emitCpuBackwardDelta(EmitContext &context);
void emitGpuBackwardDelta(EmitContext &context);
void emitCpuBackward(EmitContext &context);
void emitCpuBackwardSum(EmitContext &context);
void emitGpuBackwardSum(EmitContext &context);
void emitSm90Backward(EmitContext &context);
void emitSm80BackwardKV(EmitContext &context);
void emitSm80BackwardQ(EmitContext &context);
void emitCpuBackwardScore(EmitContext &context);
void emitSm80BackwardScore(EmitContext &context);
void emitSm90BackwardKV(EmitContext &context);
void emitSm90BackwardQ(EmitContext &context);

} // namespace flashplus
