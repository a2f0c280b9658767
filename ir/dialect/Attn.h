// SPDX-License-Identifier: BSD-3-Clause
// The attn dialect's C++ face, and the way between it and spec/.
#pragma once

#include "spec/kernel.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "ir/dialect/AttnDialect.h.inc"
#define GET_OP_CLASSES
#include "ir/dialect/AttnOps.h.inc"

namespace flashplus::attn {

/// Arguments of the score region, in order.
enum ScoreArg { kScore, kBatch, kHead, kHeadK, kQuery, kKey, kSeqlenQ, kSeqlenK, kNumScoreArgs };

/// Fills an empty region with a score's block, which yields what `use` says; `wanted` is a score_grads.
void buildScore(mlir::Region &region, mlir::Location loc, const ScoreExpr &score, ScoreUse use,
                int wanted = 0);
/// Reads the score back, whatever else the block yields; names are the canonical ones. Unsupported if the
/// region holds what no score expression has.
Result<ScoreExpr> readScore(mlir::Region &region);

/// Appends the operation for `kernel` to `module`.
mlir::Operation *buildOp(mlir::ModuleOp module, const Kernel &kernel);

/// Whether it is an operation of kernels: attn.<name of an Operation>.
bool isKernel(mlir::Operation *op);

/// Reads a kernel operation (attn.forward, ...) back, the inverse of buildOp; score names are the canonical
/// ones. Fails when the score region holds operations that no score expression has (hand-written IR may), or
/// when a text attribute does not parse.
Result<Kernel> describeOp(mlir::Operation *op);

/// As describeOp but without the score, which stays in the region; for expanding hand-written regions.
Result<Kernel> describeOpWithoutScore(mlir::Operation *op);

} // namespace flashplus::attn
