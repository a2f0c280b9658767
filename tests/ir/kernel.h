// SPDX-License-Identifier: BSD-3-Clause
// A small GPU kernel from a function that writes its IR, as PTX for the emulator.
#pragma once

#include "ir/ir.h"

#include <string>

namespace flashplus::test {

/// Writes a kernel's body. `in` and `out` are its two arguments, global pointers; `lane` is the thread.
using KernelBody = llvm::function_ref<void(Ir &, Val in, Val out, Val lane)>;

/// PTX with the entry "test"; fails the running test where that does not work.
std::string compileKernel(const Target &target, KernelBody body);

} // namespace flashplus::test
