// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/ptx/ast.h"
#include "spec/status.h"

namespace flashplus::emu {

/// Parses PTX text. `text` may be anything: what is not PTX, or PTX that the emulator doesn't model (device
/// functions, textures), is InvalidArgument "line L, column C: ...". Instructions are not checked here:
/// decode.h does that.
Result<std::unique_ptr<ModuleAst>> parsePtx(std::string text);

} // namespace flashplus::emu
