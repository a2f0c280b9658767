// SPDX-License-Identifier: BSD-3-Clause
// How results of sm80.flash leave.
#pragma once

#include "templates/common/softmax.h"
#include "templates/forward/sm80_flash/kernel.h"

namespace flashplus::sm80_flash {

/// Stores O and LSEs. Works the thread and its item out anew in `kernel`, so that no register holds them
/// through the loop.
void storeResults(ItemView &kernel, softmax::State state);

} // namespace flashplus::sm80_flash
