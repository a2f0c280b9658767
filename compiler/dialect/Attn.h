// SPDX-License-Identifier: BSD-3-Clause
// The attn dialect's C++ face, and the way between it and spec/.
#pragma once

#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "compiler/dialect/AttnDialect.h.inc"
#define GET_OP_CLASSES
#include "compiler/dialect/AttnOps.h.inc"

namespace flashplus::attn {

/// Arguments of the score region, in order.
enum ScoreArg { kScore, kBatch, kHead, kHeadK, kQuery, kKey, kSeqlenQ, kSeqlenK, kNumScoreArgs };

/// What an attn operation says; the inverse of buildOp.
struct KernelDescription {
  KernelSpec spec; ///< Score names are the canonical ones.
  Schedule schedule;
  Target target;
};

/// Appends the operation for `description` to `module`.
mlir::Operation *buildOp(mlir::ModuleOp module, const KernelDescription &description);

/// Reads an attn.forward or attn.combine back. Fails when the score region holds operations that no score expression
/// has (hand-written IR may), or when a text attribute does not parse.
Result<KernelDescription> describeOp(mlir::Operation *op);

/// As describeOp but without the score, which stays in the region; for expanding hand-written regions.
Result<KernelDescription> describeOpWithoutScore(mlir::Operation *op);

} // namespace flashplus::attn
