// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/compiler.h"

#include "compiler/codegen/codegen.h"
#include "compiler/codegen/nvjitlink.h"
#include "compiler/codegen/ptxas.h"
#include "compiler/passes/Passes.h"
#include "templates/registry.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/LLVMContext.h"

#include <chrono>

using namespace mlir;

namespace flashplus {
namespace {

/// Adds the milliseconds of its lifetime to a field.
class Stopwatch {
public:
  explicit Stopwatch(double &field) : field_(field) {}
  ~Stopwatch() {
    field_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

private:
  double &field_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

const DialectRegistry &dialects() {
  static const DialectRegistry registry = [] {
    DialectRegistry r;
    registerFlashplusDialects(r);
    return r;
  }();
  return registry;
}

/// The translation leaves the attribute out, and without it a barrier may be moved into a branch.
void markInlinePtxConvergent(llvm::Module &module) {
  for (llvm::Function &function : module)
    for (llvm::Instruction &instruction : llvm::instructions(function))
      if (auto *call = llvm::dyn_cast<llvm::CallInst>(&instruction); call && call->isInlineAsm())
        call->addFnAttr(llvm::Attribute::Convergent);
}

/// One compilation: an MLIR and an LLVM context of its own, advanced stage by stage.
class Compilation {
public:
  explicit Compilation(const Kernel &kernel)
      : kernel_(kernel), context_(dialects(), MLIRContext::Threading::DISABLED),
        handler_(&context_, [this](Diagnostic &d) {
          if (d.getSeverity() == DiagnosticSeverity::Error)
            diagnostics_ += (diagnostics_.empty() ? "" : "; ") + d.str();
          return success();
        }) {
    context_.loadAllAvailableDialects();
  }

  flashplus_compile_times times{};

  Status build() {
    Stopwatch watch(times.build);
    module_ = ModuleOp::create(UnknownLoc::get(&context_));
    attn::buildOp(*module_, kernel_);
    return succeeded(mlir::verify(*module_)) ? Status::ok() : failure("verification");
  }

  Status expand() {
    Stopwatch watch(times.build);
    PassManager passes(&context_);
    passes.addPass(createAttnExpandPass());
    return succeeded(passes.run(*module_)) ? Status::ok() : failure("expansion");
  }

  Status lower() {
    Stopwatch watch(times.passes);
    PassManager passes(&context_);
    passes.enableVerifier(false); // expansion verified; the stock lowering is trusted in production
    buildLoweringPipeline(passes, isGpu(kernel_.target.isa));
    if (failed(passes.run(*module_)))
      return failure("lowering");
    llvm_module_ = translateModuleToLLVMIR(*module_, llvm_context_);
    if (llvm_module_)
      markInlinePtxConvergent(*llvm_module_);
    return llvm_module_ ? Status::ok() : failure("translation to LLVM IR");
  }

  Status optimize() {
    Stopwatch watch(times.optimize);
    auto machine = createTargetMachine(kernel_.target);
    if (!machine)
      return machine.status();
    machine_ = std::move(*machine);
    optimizeModule(*llvm_module_, *machine_);
    return Status::ok();
  }

  Result<std::string> emit(EmitKind kind) {
    Stopwatch watch(times.emit);
    return emitModule(*llvm_module_, *machine_, kind);
  }

  std::string printMlir() {
    std::string text;
    llvm::raw_string_ostream stream(text);
    module_->print(stream);
    return text;
  }

  std::string printLlvm() {
    std::string text;
    llvm::raw_string_ostream stream(text);
    llvm_module_->print(stream, nullptr);
    return text;
  }

private:
  Status failure(const char *stage) {
    return {StatusCode::CompileFailed, std::string(stage) + " of '" + kernel_.spec.text() + "' with '" +
                                           kernel_.schedule.text() + "' failed: " + diagnostics_};
  }

  const Kernel &kernel_;
  std::string diagnostics_;
  MLIRContext context_;
  ScopedDiagnosticHandler handler_;
  OwningOpRef<ModuleOp> module_;
  llvm::LLVMContext llvm_context_;
  std::unique_ptr<llvm::Module> llvm_module_;
  std::unique_ptr<llvm::TargetMachine> machine_;
};

/// Everything up to machine code or PTX.
Status runTo(Compilation &c) {
  FLASHPLUS_RETURN_IF_ERROR(c.build());
  FLASHPLUS_RETURN_IF_ERROR(c.expand());
  FLASHPLUS_RETURN_IF_ERROR(c.lower());
  return c.optimize();
}

std::string describeResources(const Artifact &a) {
  auto number = [](int64_t v) { return v < 0 ? std::string("unknown") : std::to_string(v); };
  return "entry         " + a.launch.entry + "\nthreads       " + number(a.launch.threads) +
         "\nregisters     " + number(a.resources.registers) + "\nspill bytes   " +
         number(a.resources.spill_bytes) + "\nstack bytes   " + number(a.resources.stack_bytes) +
         "\nshared memory " + number(a.launch.shared_memory) + "\nscratch       " + number(a.launch.scratch) +
         "\ncode bytes    " + number(int64_t(a.code.size())) + "\nmade by       " + a.provenance + "\n";
}

/// PTX -> cubin in `artifact`, if there is an assembler that can; else it stays PTX.
Status assemble(Artifact &artifact, const std::string &ptx, const Kernel &kernel,
                const Assemblers &assemblers) {
  const std::string chip = kernel.target.chipName();
  Result<Cubin> cubin = Cubin();
  std::string assembler;
  const auto named = [](const char *path) { return path && *path && std::string_view(path) != "off"; };
  // nvJitLink always assembles relocatable code, for which setmaxnreg is ignored
  // (docs/rationale/assemblers.md).
  const bool may_link = !isaInfo(kernel.target.isa).has(kSetMaxRegisters) &&
                        (named(assemblers.paths.nvjitlink) || !named(assemblers.paths.ptxas));
  auto linker = may_link ? NvJitLink::open(assemblers.paths.nvjitlink) : Status(StatusCode::Unsupported, "");
  if (linker) {
    assembler = "nvJitLink " + (*linker)->version();
    artifact.assembler = assemblerOf(Assembler::Kind::NvJitLink, (*linker)->version());
    cubin = (*linker)->assemble(ptx, chip);
  } else if (linker.status().code() != StatusCode::Unsupported) {
    return linker.status();
  } else if (const auto program = Ptxas::find(assemblers.paths.ptxas)) {
    assembler = "ptxas " + (*program)->version();
    artifact.assembler = assemblerOf(Assembler::Kind::Ptxas, (*program)->version());
    cubin = (*program)->assemble(ptx, chip, assemblers.seconds);
  } else {
    return program.status().code() == StatusCode::Unsupported ? Status::ok() : program.status();
  }
  if (!cubin)
    return cubin.status();
  if (const std::string loss = performanceLoss(cubin->log); !loss.empty())
    return {StatusCode::CompileFailed, assembler + " spoils '" + kernel.spec.text() + "' with '" +
                                           kernel.schedule.text() + "': " + loss};
  artifact.kind = CodeKind::Cubin;
  artifact.code = std::move(cubin->code);
  artifact.resources = cubin->resources;
  artifact.provenance += ", " + assembler;
  return Status::ok();
}

} // namespace

std::string compilerDescription() { return "LLVM " LLVM_VERSION_STRING; }

Result<Artifact> compileKernel(const Kernel &kernel, const Assemblers &assemblers,
                               flashplus_compile_times &times) {
  FLASHPLUS_RETURN_IF_ERROR(kernel.spec.validate());
  auto launch = launchSchema(kernel.spec, kernel.schedule, kernel.target);
  if (!launch)
    return launch.status();
  Compilation c(kernel);
  FLASHPLUS_RETURN_IF_ERROR(runTo(c));
  const bool gpu = isGpu(kernel.target.isa);
  auto emitted = c.emit(gpu ? EmitKind::Assembly : EmitKind::Object);
  if (!emitted)
    return emitted.status();

  Artifact artifact;
  artifact.launch = std::move(*launch);
  artifact.provenance = compilerDescription();
  artifact.kind = gpu ? CodeKind::Ptx : CodeKind::X86Object;
  artifact.code.assign(emitted->begin(), emitted->end());
  if (gpu) {
    Stopwatch watch(c.times.assemble);
    FLASHPLUS_RETURN_IF_ERROR(assemble(artifact, *emitted, kernel, assemblers));
  }
  times = c.times;
  return artifact;
}

Result<std::string> printStage(const Kernel &kernel, std::string_view stage, const Assemblers &assemblers) {
  if (stage == "resources") {
    flashplus_compile_times times{};
    auto artifact = compileKernel(kernel, assemblers, times);
    if (!artifact)
      return artifact.status();
    return describeResources(*artifact);
  }
  FLASHPLUS_RETURN_IF_ERROR(kernel.spec.validate());
  Compilation c(kernel);
  FLASHPLUS_RETURN_IF_ERROR(c.build());
  if (stage == "attn")
    return c.printMlir();
  FLASHPLUS_RETURN_IF_ERROR(c.expand());
  if (stage == "loops")
    return c.printMlir();
  FLASHPLUS_RETURN_IF_ERROR(c.lower());
  FLASHPLUS_RETURN_IF_ERROR(c.optimize());
  if (stage == "llvm")
    return c.printLlvm();
  if (stage == (isGpu(kernel.target.isa) ? "ptx" : "asm"))
    return c.emit(EmitKind::Assembly);
  return invalidArgument("stage is '" + std::string(stage) + "'; it must be one of attn, loops, llvm, " +
                         (isGpu(kernel.target.isa) ? "ptx" : "asm") + ", resources");
}

} // namespace flashplus
