// SPDX-License-Identifier: BSD-3-Clause
#include "templates/emit.h"

#include "templates/common/score.h"
#include "templates/registry.h"

using namespace mlir;

namespace flashplus {
namespace {

struct Emitter {
  std::string_view algorithm;
  void (*emit)(EmitContext &);
};
constexpr Emitter kEmitters[] = {
    {"cpu.flash", emitCpuFlash},
    {"cpu.stream", emitCpuStream},
    {"sm80.decode", emitDecode},
    {"sm90.decode", emitDecode},
    {"sm80.flash", emitSm80Flash},
    {"sm90.flash", emitSm90Flash},
    {"cpu.combine", emitCpuCombine},
    {"gpu.combine", emitGpuCombine},
    {"cpu.append", emitCpuAppend},
    {"gpu.append", emitGpuAppend},
    {"cpu.merge", emitCpuMerge},
    {"gpu.merge", emitGpuMerge},
    {"cpu.backward_delta", emitCpuBackwardDelta},
    {"gpu.backward_delta", emitGpuBackwardDelta},
    {"cpu.backward", emitCpuBackward},
    {"cpu.backward_sum", emitCpuBackwardSum},
    {"gpu.backward_sum", emitGpuBackwardSum},
    {"sm90.backward", emitSm90Backward},
    {"sm80.backward_kv", emitSm80BackwardKV},
    {"sm80.backward_q", emitSm80BackwardQ},
    {"cpu.backward_score", emitCpuBackwardScore},
    {"sm80.backward_score", emitSm80BackwardScore},
    {"sm90.backward_kv", emitSm90BackwardKV},
    {"sm90.backward_q", emitSm90BackwardQ},
};

/// void kernel(Params params[, CUtensorMap maps[n]]): by value in parameter memory.
LLVM::LLVMFuncOp createGpuKernel(OpBuilder &builder, Location loc, StringRef name,
                                 const LaunchSchema &launch) {
  MLIRContext *context = builder.getContext();
  auto ptr = LLVM::LLVMPointerType::get(context);
  const size_t maps = launch.tensor_maps.size();
  SmallVector<Type> parameters(maps ? 2 : 1, ptr);
  auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context), parameters);
  auto func = LLVM::LLVMFuncOp::create(builder, loc, name, type);
  auto byValue = [&](unsigned argument, int64_t bytes, int64_t alignment) {
    func.setArgAttr(argument, LLVM::LLVMDialect::getByValAttrName(),
                    TypeAttr::get(LLVM::LLVMArrayType::get(builder.getI8Type(), bytes)));
    func.setArgAttr(argument, LLVM::LLVMDialect::getAlignAttrName(), builder.getI64IntegerAttr(alignment));
    func.setArgAttr(argument, NVVM::NVVMDialect::getGridConstantAttrName(), builder.getUnitAttr());
  };
  byValue(0, launch.params_size, 8);
  if (maps)
    byValue(1, int64_t(maps) * kTensorMapBytes, 64);
  func->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), builder.getUnitAttr());
  func->setAttr(NVVM::NVVMDialect::getReqntidAttrName(),
                builder.getDenseI32ArrayAttr({launch.threads, 1, 1}));
  func->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                builder.getI32IntegerAttr(std::max(1, launch.blocks_per_sm)));
  // Flush denormals: exp2 and the products then need no slow path.
  func.setPassthroughAttr(builder.getArrayAttr(
      {builder.getStrArrayAttr({"denormal-fp-math-f32", "preserve-sign,preserve-sign"})}));
  return func;
}

/// void kernel(const Params *, int64_t work_item, void *scratch)
LLVM::LLVMFuncOp createCpuKernel(OpBuilder &builder, Location loc, StringRef name) {
  MLIRContext *context = builder.getContext();
  auto ptr = LLVM::LLVMPointerType::get(context);
  auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context), {ptr, builder.getI64Type(), ptr});
  auto func = LLVM::LLVMFuncOp::create(builder, loc, name, type);
  // Scratch is private to the worker; nothing else points into it.
  func.setArgAttr(2, LLVM::LLVMDialect::getNoAliasAttrName(), builder.getUnitAttr());
  return func;
}

Val sharedMemory(Ir &ir, ModuleOp module) {
  constexpr llvm::StringLiteral kName = "flashplus_shared";
  if (!module.lookupSymbol(kName)) {
    OpBuilder::InsertionGuard guard(ir.builder);
    ir.builder.setInsertionPointToStart(module.getBody());
    LLVM::GlobalOp::create(ir.builder, ir.loc, LLVM::LLVMArrayType::get(ir.builder.getI8Type(), 0),
                           /*isConstant=*/false, LLVM::Linkage::External, kName, Attribute(),
                           /*alignment=*/1024,
                           /*addrSpace=*/3);
  }
  return ir.wrap(LLVM::AddressOfOp::create(ir.builder, ir.loc, ir.ptr(3), kName));
}

} // namespace

Status expandKernel(mlir::Operation *op) {
  auto description = attn::describeOpWithoutScore(op);
  if (!description)
    return description.status();
  auto launch = launchSchema(description->spec, description->schedule, description->target);
  if (!launch)
    return launch.status();
  const OperationInfo &info = operationInfo(description->spec.op);
  if (info.hasScore()) // which the description is without
    launch->params_size = int64_t(paramLayout(info.params, info.params_size,
                                              paramGroups(description->spec, clampsIndices(op->getRegion(0))))
                                      .size);
  const Emitter *emitter = nullptr;
  for (const Emitter &e : kEmitters)
    if (e.algorithm == description->schedule.algorithm)
      emitter = &e;
  if (!emitter)
    return {StatusCode::Internal, "algorithm '" + description->schedule.algorithm + "' has no emitter"};

  auto module = op->getParentOfType<ModuleOp>();
  OpBuilder builder(op);
  const Location loc = op->getLoc();
  const StringRef name = op->getAttrOfType<StringAttr>(SymbolTable::getSymbolAttrName()).getValue();
  const bool gpu = isGpu(description->target.isa);
  auto func = gpu ? createGpuKernel(builder, loc, name, *launch) : createCpuKernel(builder, loc, name);
  Block *entry = func.addEntryBlock(builder);
  builder.setInsertionPointToEnd(entry);
  LLVM::ReturnOp::create(builder, loc, ValueRange());
  builder.setInsertionPointToStart(entry);

  Ir ir(builder, loc, description->target);
  Val params = ir.wrap(entry->getArgument(0));
  Val work_item = gpu ? ir.wrap(NVVM::BlockIdXOp::create(builder, loc, ir.i32()))
                      : ir.toI32(ir.wrap(entry->getArgument(1)));
  EmitContext context{ir,
                      description->spec,
                      description->schedule,
                      description->target,
                      info.hasScore() ? &op->getRegion(0) : nullptr,
                      ParamReader(ir, params, info.params),
                      work_item,
                      launch->tensor_maps.empty() ? Val{} : ir.wrap(entry->getArgument(1)),
                      gpu ? sharedMemory(ir, module) : ir.wrap(entry->getArgument(2))};
  emitter->emit(context);
  op->erase();
  return Status::ok();
}

} // namespace flashplus
