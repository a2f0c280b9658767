// SPDX-License-Identifier: BSD-3-Clause
#include "ir/dialect/Attn.h"
#include "compiler/passes/Passes.h"
#include "ir/pch.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/ConvertToLLVM/ToLLVMPass.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/NVVMToLLVM/NVVMToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

namespace flashplus {

void registerFlashplusDialects(DialectRegistry &registry) {
  registry.insert<attn::AttnDialect, arith::ArithDialect, cf::ControlFlowDialect, LLVM::LLVMDialect,
                  math::MathDialect, NVVM::NVVMDialect, scf::SCFDialect, vector::VectorDialect>();
  arith::registerConvertArithToLLVMInterface(registry);
  cf::registerConvertControlFlowToLLVMInterface(registry);
  registerConvertMathToLLVMInterface(registry);
  registerConvertNVVMToLLVMInterface(registry);
  vector::registerConvertVectorToLLVMInterface(registry);
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
}

void buildLoweringPipeline(OpPassManager &passes, bool gpu) {
  if (gpu)
    passes.addPass(createCheckAtomicsPass());
  passes.addPass(gpu ? createLowerMathToNvvmPass() : createApproximateMathPass());
  passes.addPass(createCSEPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
}

void registerFlashplusPasses() {
  mlir::registerPass([] { return createAttnExpandPass(); });
  mlir::registerPass([] { return createCheckAtomicsPass(); });
  mlir::registerPass([] { return createLowerMathToNvvmPass(); });
  mlir::registerPass([] { return createApproximateMathPass(); });
  PassPipelineRegistration<>("flashplus-lower-cpu", "Lower an expanded CPU kernel to the LLVM dialect",
                             [](OpPassManager &passes) { buildLoweringPipeline(passes, false); });
  PassPipelineRegistration<>("flashplus-lower-gpu", "Lower an expanded GPU kernel to the LLVM dialect",
                             [](OpPassManager &passes) { buildLoweringPipeline(passes, true); });
}

} // namespace flashplus
