// SPDX-License-Identifier: BSD-3-Clause
// How results of sm90.flash leave.
#pragma once

#include "templates/common/softmax.h"
#include "templates/forward/sm90_flash/kernel.h"

namespace flashplus::sm90_flash {

/// Stores O and the LSE of a thread's query rows; row r of them has number(r) (i32) in the sequence. The
/// whole warp is here.
void storeResults(EmitContext &c, const Item &item, softmax::State rows, Val lane,
                  llvm::function_ref<Val(int)> number);

} // namespace flashplus::sm90_flash
