// SPDX-License-Identifier: BSD-3-Clause
// Inline PTX, for instructions that have no intrinsic or whose operands must stay together.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// One piece of inline PTX with side effects; its results. The lowering marks it convergent
/// (compiler/compiler.cpp).
Vals ptx(Ir &ir, const std::string &text, const std::string &constraints, llvm::ArrayRef<mlir::Type> results,
         const Vals &operands);

/// One without results.
void ptx(Ir &ir, const std::string &text, const std::string &constraints = "~{memory}",
         const Vals &operands = {});

/// `count` times `item`, with commas between.
std::string repeat(const std::string &item, int count);

/// "{$first, ..., $(first + count - 1)}"
std::string registers(int first, int count);

} // namespace flashplus::gpu
