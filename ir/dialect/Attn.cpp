// SPDX-License-Identifier: BSD-3-Clause
#include "ir/dialect/Attn.h"

#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/OpImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

#include "ir/dialect/AttnDialect.cpp.inc"
#define GET_OP_CLASSES
#include "ir/dialect/AttnOps.cpp.inc"

namespace flashplus::attn {

void AttnDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "ir/dialect/AttnOps.cpp.inc"
      >();
}

namespace {

/// Everything that validates a spec lives in spec/ and templates/; here it becomes a diagnostic.
LogicalResult verifyDescription(mlir::Operation *op) {
  auto description = describeOpWithoutScore(op);
  if (!description)
    return op->emitOpError() << description.status().message();
  if (Status status = description->spec.validate(); !status)
    return op->emitOpError() << status.message();
  return success();
}

/// A score region that yields `yields` values.
LogicalResult verifyScore(mlir::Operation *op, size_t yields) {
  Block &block = op->getRegion(0).front();
  bool good = block.getNumArguments() == kNumScoreArgs && block.getArgument(kScore).getType().isF32();
  for (unsigned i = 1; good && i < kNumScoreArgs; ++i)
    good = block.getArgument(i).getType().isInteger(32);
  if (!good)
    return op->emitOpError("the score region takes (f32, i32, i32, i32, i32, i32, i32, i32)");
  auto yield = dyn_cast<YieldOp>(block.back());
  if (!yield)
    return op->emitOpError("the score region ends in attn.yield");
  if (yield.getValues().size() != yields)
    return op->emitOpError() << "the score region yields " << yield.getValues().size()
                             << " values; it must yield "
                             << (yields == 1 ? "one, the score"
                                             : "two, the score and its derivative with respect to s");
  return success();
}

LogicalResult verifySlot(mlir::Operation *op, int64_t slot, int64_t limit) {
  if (slot < 0 || slot >= limit)
    return op->emitOpError() << "slot is " << slot << "; it must be 0 to " << limit - 1;
  return success();
}

LogicalResult verifyElement(mlir::Operation *op, int64_t slot, size_t indices) {
  if (indices == 0 || indices > size_t(kMaxScoreTensorRank))
    return op->emitOpError() << "has " << indices << " indices; it must have 1 to " << kMaxScoreTensorRank;
  return verifySlot(op, slot, kMaxScoreTensors);
}

/// Of an operation that only means something where gradients of the score's inputs are summed.
LogicalResult verifyParent(mlir::Operation *op) {
  if (!isa<BackwardScoreOp>(op->getParentOp()))
    return op->emitOpError("stands in an attn.backward_score only");
  return success();
}

} // namespace

LogicalResult ForwardOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardKVOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardQOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardScoreOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardDeltaOp::verify() { return verifyDescription(*this); }
LogicalResult BackwardSumOp::verify() { return verifyDescription(*this); }
LogicalResult CombineOp::verify() { return verifyDescription(*this); }
LogicalResult AppendOp::verify() { return verifyDescription(*this); }
LogicalResult MergeOp::verify() { return verifyDescription(*this); }

LogicalResult ForwardOp::verifyRegions() { return verifyScore(*this, 1); }
LogicalResult BackwardOp::verifyRegions() { return verifyScore(*this, 2); }
LogicalResult BackwardKVOp::verifyRegions() { return verifyScore(*this, 2); }
LogicalResult BackwardQOp::verifyRegions() { return verifyScore(*this, 2); }
LogicalResult BackwardScoreOp::verifyRegions() { return verifyScore(*this, 1); }

LogicalResult ScalarOp::verify() { return verifySlot(*this, getSlot(), kMaxScoreScalars); }

LogicalResult AuxOp::verify() { return verifyElement(*this, getSlot(), getIndices().size()); }

LogicalResult ScalarGradientOp::verify() {
  if (failed(verifyParent(*this)))
    return failure();
  return verifySlot(*this, getSlot(), kMaxScoreScalars);
}

LogicalResult AuxGradientOp::verify() {
  if (failed(verifyParent(*this)))
    return failure();
  return verifyElement(*this, getSlot(), getIndices().size());
}

} // namespace flashplus::attn
