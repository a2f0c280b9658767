// SPDX-License-Identifier: BSD-3-Clause
// LLVM IR -> PTX, assembly or object.
#pragma once

#include "spec/status.h"
#include "spec/target.h"

#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"

#include <memory>
#include <string>

namespace flashplus {

/// The machine for a target. Only pairs of chip and PTX version out of the table of spec/target.h get this
/// far: LLVM ends the process on a pair that it does not know.
Result<std::unique_ptr<llvm::TargetMachine>> createTargetMachine(const Target &target);

/// Sets the triple and layout and runs the middle end. No library function is assumed to exist, so that a CPU
/// object is self-contained.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine);

enum class EmitKind { Assembly, Object };
Result<std::string> emitModule(llvm::Module &module, llvm::TargetMachine &machine, EmitKind kind);

} // namespace flashplus
