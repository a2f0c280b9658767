// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/passes/Passes.h"
#include "templates/emit.h"

using namespace mlir;

namespace flashplus {
namespace {

struct AttnExpandPass : PassWrapper<AttnExpandPass, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(AttnExpandPass)

  StringRef getArgument() const final { return "attn-expand"; }
  StringRef getDescription() const final { return "Expand attn operations into kernels for their target"; }
  void getDependentDialects(DialectRegistry &registry) const final {
    registry.insert<arith::ArithDialect, LLVM::LLVMDialect, math::MathDialect, NVVM::NVVMDialect,
                    scf::SCFDialect, vector::VectorDialect>();
  }

  void runOnOperation() final {
    SmallVector<mlir::Operation *> kernels;
    for (mlir::Operation &op : *getOperation().getBody())
      if (attn::isKernel(&op))
        kernels.push_back(&op);
    for (mlir::Operation *op : kernels)
      if (Status status = expandKernel(op); !status) {
        op->emitOpError() << status.message();
        return signalPassFailure();
      }
  }
};

} // namespace

std::unique_ptr<Pass> createAttnExpandPass() { return std::make_unique<AttnExpandPass>(); }

} // namespace flashplus
