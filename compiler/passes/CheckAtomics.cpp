// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/passes/Passes.h"
#include "ir/pch.h"

using namespace mlir;

namespace flashplus {
namespace {

struct CheckAtomicsPass : PassWrapper<CheckAtomicsPass, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(CheckAtomicsPass)
  StringRef getArgument() const final { return "check-atomics"; }
  StringRef getDescription() const final { return "Refuse atomic operations whose order would be lost"; }
  void runOnOperation() final {
    getOperation().walk([&](LLVM::AtomicRMWOp op) {
      if (op.getOrdering() == LLVM::AtomicOrdering::monotonic)
        return;
      op.emitError()
          << "'" << LLVM::stringifyAtomicOrdering(op.getOrdering())
          << "' is an order that LLVM drops for NVPTX; it must be 'monotonic', or the operation PTX";
      signalPassFailure();
    });
  }
};

} // namespace

std::unique_ptr<Pass> createCheckAtomicsPass() { return std::make_unique<CheckAtomicsPass>(); }

} // namespace flashplus
