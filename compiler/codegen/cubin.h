// SPDX-License-Identifier: BSD-3-Clause
// What an assembler makes of PTX, and what its messages say.
#pragma once

#include "spec/artifact.h"

#include <string>
#include <string_view>

namespace flashplus {

struct Cubin {
  std::vector<uint8_t> code;
  Resources resources;
  std::string log;
};

/// Registers, spills and stack out of a ptxas -v style log.
Resources parseResources(std::string_view log);

/// The first message that says that the code is far slower than it was meant to be: asynchronous products
/// that run one after the other, or a register reallocation that is ignored (ptxas' C75xx). Empty if there is
/// none.
std::string performanceLoss(std::string_view log);

/// Of an assembler's failure with these messages: CompileFailed, or OutOfMemory, which says nothing about the
/// code.
StatusCode refusalCode(std::string_view log);

} // namespace flashplus
