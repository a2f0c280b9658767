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

LogicalResult verifySlot(mlir::Operation *op, int64_t slot, int64_t limit) {
  if (slot < 0 || slot >= limit)
    return op->emitOpError() << "slot is " << slot << "; it must be 0 to " << limit - 1;
  return success();
}

} // namespace

LogicalResult ForwardOp::verify() { return verifyDescription(*this); }

LogicalResult ForwardOp::verifyRegions() {
  Block &block = getScore().front();
  bool good = block.getNumArguments() == kNumScoreArgs && block.getArgument(kScore).getType().isF32();
  for (unsigned i = 1; good && i < kNumScoreArgs; ++i)
    good = block.getArgument(i).getType().isInteger(32);
  if (!good)
    return emitOpError("the score region takes (f32, i32, i32, i32, i32, i32, i32, i32)");
  if (!isa<YieldOp>(block.back()))
    return emitOpError("the score region ends in attn.yield");
  return success();
}

LogicalResult CombineOp::verify() { return verifyDescription(*this); }

LogicalResult ScalarOp::verify() { return verifySlot(*this, getSlot(), kMaxScoreScalars); }

LogicalResult AuxOp::verify() {
  if (getIndices().empty() || getIndices().size() > size_t(kMaxScoreTensorRank))
    return emitOpError() << "has " << getIndices().size() << " indices; it must have 1 to " << kMaxScoreTensorRank;
  return verifySlot(*this, getSlot(), kMaxScoreTensors);
}

} // namespace flashplus::attn
