// SPDX-License-Identifier: BSD-3-Clause
// Compiler: spec, schedule and target in, artifact out. Everything between lives for one call, in contexts of
// its own, so that calls on many threads run side by side.
#pragma once

#include "ir/dialect/Attn.h"
#include "compiler/entry.h"
#include "spec/artifact.h"

#include <string>

namespace flashplus {

/// Where they are, and how long the program ptxas may run (flashplus_compile_request).
struct Assemblers {
  flashplus_assemblers paths{};
  int64_t seconds = 0;
};

/// "LLVM 22.1.8"
std::string compilerDescription();

/// Compiles to an object (CPU), a cubin, or PTX text without an assembler for the target (GPU).
Result<Artifact> compileKernel(const Kernel &kernel, const Assemblers &assemblers,
                               flashplus_compile_times &times);

/// One stage as text: attn, loops (expanded kernel), llvm (optimised LLVM IR), ptx or asm, resources.
Result<std::string> printStage(const Kernel &kernel, std::string_view stage, const Assemblers &assemblers);

} // namespace flashplus
