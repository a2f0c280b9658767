// SPDX-License-Identifier: BSD-3-Clause
// Grids that follow each other in a stream, from sm_90 on: a kernel that overlaps the one before it is
// launched while that still runs, does what needs nobody's memory, and waits. It says so itself
// (spec/overlap.h); whoever launches it without more has launched an ordinary kernel.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// Once a kernel, before anything is emitted: launchers may let it overlap (Ir::overlaps).
void declareOverlap(Ir &ir);
/// Until the grid before has ended and its memory is there. In such a kernel every block does it, one without
/// work too, before it reads what others wrote or writes anything: a grid that ended without would let the
/// one after it begin before the one before it has ended.
void waitForGridBefore(Ir &ir);
/// The grid behind may be launched as soon as all blocks have said so or ended, and there is room.
void releaseGridBehind(Ir &ir);

} // namespace flashplus::gpu
