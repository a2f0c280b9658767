// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/core/program.h"

namespace flashplus::emu {

/// Whether control may go on to the next instruction, and whether the instruction ends a block.
bool endsBlock(const Instruction &in);

/// Sets `reconvergence` of every branch to the first instruction of its block's immediate post-dominator, as
/// the hardware's own reconvergence points are placed. A branch whose sides only meet at the exit, or that
/// lies in a loop without a way out, has none.
void findReconvergence(std::vector<Instruction> &code);

} // namespace flashplus::emu
