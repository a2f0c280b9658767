// SPDX-License-Identifier: BSD-3-Clause
// The compiler's own passes and the pipeline that they are part of.
#pragma once

#include "spec/target.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassManager.h"

namespace flashplus {

/// attn-expand: replaces every attn.forward and attn.combine by a kernel (templates/emit.h).
std::unique_ptr<mlir::Pass> createAttnExpandPass();

/// lower-math-to-nvvm: exp, log, tanh and sqrt as approximate GPU instructions; stock MLIR would call
/// libdevice.
std::unique_ptr<mlir::Pass> createLowerMathToNvvmPass();

/// approximate-math: MLIR's polynomial expansions, for a CPU object that calls no library.
std::unique_ptr<mlir::Pass> createApproximateMathPass();

/// check-atomics: refuses an atomicrmw with an order in GPU code. LLVM (22.1) emits it without one, and what
/// is right in MLIR would be a race in PTX.
std::unique_ptr<mlir::Pass> createCheckAtomicsPass();

/// For flashplus-opt.
void registerFlashplusPasses();

/// Every dialect, conversion interface and translation that the pipeline needs.
void registerFlashplusDialects(mlir::DialectRegistry &registry);

/// Expanded kernel -> LLVM dialect.
void buildLoweringPipeline(mlir::OpPassManager &passes, bool gpu);

} // namespace flashplus
