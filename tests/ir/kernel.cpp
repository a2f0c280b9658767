// SPDX-License-Identifier: BSD-3-Clause
#include "tests/ir/kernel.h"

#include "compiler/codegen/codegen.h"
#include "compiler/passes/Passes.h"
#include "ir/warp.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Target/LLVMIR/Export.h"

#include <doctest/doctest.h>

namespace flashplus::test {

std::string compileKernel(const Target &target, KernelBody body) {
  mlir::DialectRegistry registry;
  registerFlashplusDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  mlir::OpBuilder builder(&context);
  const auto loc = builder.getUnknownLoc();
  mlir::OwningOpRef<mlir::ModuleOp> module = mlir::ModuleOp::create(loc);
  builder.setInsertionPointToStart(module->getBody());
  const mlir::Type address = builder.getI64Type();
  auto type = mlir::LLVM::LLVMFunctionType::get(mlir::LLVM::LLVMVoidType::get(&context), {address, address});
  auto func = mlir::LLVM::LLVMFuncOp::create(builder, loc, "test", type);
  func->setAttr(mlir::NVVM::NVVMDialect::getKernelFuncAttrName(), builder.getUnitAttr());
  mlir::Block *entry = func.addEntryBlock(builder);
  builder.setInsertionPointToEnd(entry);
  mlir::LLVM::ReturnOp::create(builder, loc, mlir::ValueRange());
  builder.setInsertionPointToStart(entry);
  Ir ir(builder, loc, target);
  auto argument = [&](unsigned i) {
    return ir.wrap(mlir::LLVM::IntToPtrOp::create(builder, loc, ir.ptr(1), entry->getArgument(i)));
  };
  body(ir, argument(0), argument(1), gpu::threadId(ir));
  REQUIRE(mlir::succeeded(mlir::verify(*module)));
  mlir::PassManager passes(&context);
  buildLoweringPipeline(passes, true);
  REQUIRE(mlir::succeeded(passes.run(*module)));
  llvm::LLVMContext llvm_context;
  auto llvm_module = mlir::translateModuleToLLVMIR(*module, llvm_context);
  REQUIRE(llvm_module);
  auto machine = createTargetMachine(target);
  REQUIRE(machine);
  optimizeModule(*llvm_module, **machine);
  auto ptx = emitModule(*llvm_module, **machine, EmitKind::Assembly);
  REQUIRE(ptx);
  return *ptx;
}

} // namespace flashplus::test
