// SPDX-License-Identifier: BSD-3-Clause
// From PTX text to its syntax tree.
#pragma once

#include "emulator/ptx/ast.h"
#include "spec/status.h"

namespace flashplus::emu {

/// Parses PTX text, which the module keeps: the tree's names are views into it. Thread-safe; the module is
/// the caller's. `text` may be anything: what is not PTX, or PTX that the emulator doesn't model (device
/// functions, textures), is InvalidArgument "line L, column C: ..." of the first mistake, and sizes that no
/// program has are refused before anything of that size is allocated. Instructions are not checked here:
/// decodeProgram() does that.
Result<std::unique_ptr<ModuleAst>> parsePtx(std::string text);

} // namespace flashplus::emu
