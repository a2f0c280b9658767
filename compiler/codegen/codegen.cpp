// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/codegen.h"

#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Transforms/InstCombine/InstCombine.h"
#include "llvm/Transforms/Scalar/ADCE.h"
#include "llvm/Transforms/Scalar/EarlyCSE.h"
#include "llvm/Transforms/Scalar/LICM.h"
#include "llvm/Transforms/Scalar/LoopPassManager.h"
#include "llvm/Transforms/Scalar/SimplifyCFG.h"
#include "llvm/Support/raw_ostream.h"

#include <mutex>

// Only the two back ends that are linked in; InitializeAll... would want every target of LLVM.
extern "C" {
void LLVMInitializeNVPTXTargetInfo();
void LLVMInitializeNVPTXTarget();
void LLVMInitializeNVPTXTargetMC();
void LLVMInitializeNVPTXAsmPrinter();
void LLVMInitializeX86TargetInfo();
void LLVMInitializeX86Target();
void LLVMInitializeX86TargetMC();
void LLVMInitializeX86AsmPrinter();
}

namespace flashplus {
namespace {

void initializeTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
  });
}

} // namespace

Result<std::unique_ptr<llvm::TargetMachine>> createTargetMachine(const Target &target) {
  initializeTargets();
  const IsaInfo &isa = isaInfo(target.isa);
  const bool gpu = isGpu(target.isa);
  const llvm::Triple triple(gpu ? "nvptx64-nvidia-cuda" : "x86_64-unknown-linux-gnu");
  const size_t plus = isa.name.find('+');
  const std::string processor(isa.name.substr(0, plus));
  const std::string features = gpu                                ? "+ptx" + std::to_string(isa.ptx_version)
                               : plus == std::string_view::npos ? ""
                                                                  : std::string(isa.name.substr(plus));
  std::string error;
  const llvm::Target *llvm_target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!llvm_target)
    return Status(StatusCode::Internal, "LLVM has no back end for " + triple.str() + ": " + error);
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Standard; // the IR marks what may be fused
  std::unique_ptr<llvm::TargetMachine> machine(llvm_target->createTargetMachine(
      triple, processor, features, options, llvm::Reloc::PIC_, llvm::CodeModel::Small,
      llvm::CodeGenOptLevel::Aggressive));
  if (!machine)
    return Status(StatusCode::Internal, "LLVM refused the target " + std::string(isa.name));
  return machine;
}

void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine) {
  module.setTargetTriple(machine.getTargetTriple());
  module.setDataLayout(machine.createDataLayout());
  llvm::TargetLibraryInfoImpl libraries(machine.getTargetTriple());
  libraries.disableAllFunctions();
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager graphs;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  functions.registerPass([&] { return llvm::TargetLibraryAnalysis(libraries); });
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(graphs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, graphs, modules);
  // Kernels come out of the templates in SSA form, inlined, blocked, vectorised and unrolled as wanted. What
  // is left to do is common subexpressions, peepholes and hoisting out of loops; the default O2 pipeline
  // gives the same code in five times the time (docs/rationale/compile-time.md).
  llvm::FunctionPassManager passes;
  passes.addPass(llvm::EarlyCSEPass(/*UseMemorySSA=*/true));
  passes.addPass(llvm::InstCombinePass());
  passes.addPass(llvm::SimplifyCFGPass());
  passes.addPass(llvm::createFunctionToLoopPassAdaptor(
      llvm::LICMPass(llvm::LICMOptions()), /*UseMemorySSA=*/true));
  passes.addPass(llvm::EarlyCSEPass(/*UseMemorySSA=*/true));
  passes.addPass(llvm::ADCEPass());
  for (llvm::Function &function : module)
    if (!function.isDeclaration())
      passes.run(function, functions);
}

Result<std::string> emitModule(llvm::Module &module, llvm::TargetMachine &machine, EmitKind kind) {
  llvm::SmallVector<char, 0> buffer;
  llvm::raw_svector_ostream stream(buffer);
  llvm::legacy::PassManager passes;
  llvm::TargetLibraryInfoImpl libraries(machine.getTargetTriple());
  libraries.disableAllFunctions();
  passes.add(new llvm::TargetLibraryInfoWrapperPass(libraries));
  if (machine.addPassesToEmitFile(passes, stream, nullptr,
                                  kind == EmitKind::Object ? llvm::CodeGenFileType::ObjectFile
                                                           : llvm::CodeGenFileType::AssemblyFile))
    return Status(StatusCode::Internal, "LLVM cannot emit this kind of file for the target");
  passes.run(module);
  return std::string(buffer.begin(), buffer.end());
}

} // namespace flashplus
