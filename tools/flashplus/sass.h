// SPDX-License-Identifier: BSD-3-Clause
// A GPU's machine code as text, by NVIDIA's own disassemblers where there is one.
#pragma once

#include "spec/status.h"

#include <span>
#include <string>

namespace flashplus::tool {

/// What `disassembler` (nvdisasm or cuobjdump, a path), or the first of those that the search path and
/// /usr/local/cuda have, prints of a cubin. Unsupported, with what to install, if there is none.
Result<std::string> disassemble(std::span<const std::byte> cubin, const std::string &disassembler);

} // namespace flashplus::tool
