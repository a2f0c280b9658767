// SPDX-License-Identifier: BSD-3-Clause
// Threads and warps, on every GPU: a function an instruction, without a policy.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

Val threadId(Ir &ir); ///< %tid.x, i32

/// An i32 or i64 that LLVM takes for a new one: what is computed from it is neither hoisted to where the same
/// was computed from `value` nor kept in registers from there.
Val again(Ir &ir, Val value);

void barrier(Ir &ir);  ///< bar.sync 0: all threads of the block
void warpSync(Ir &ir); ///< bar.warp.sync: orders the warp's own shared-memory accesses

/// Value of the lane whose number differs in the bits of `mask`; f32 or i32.
Val shuffleXor(Ir &ir, Val value, int mask);

/// Value of the lane `distance` below; the lanes that have none keep their own. f32 or i32.
Val shuffleUp(Ir &ir, Val value, int distance);
/// Value of lane `lane` (i32, 0 to 31).
Val shuffleFrom(Ir &ir, Val value, Val lane);

/// The `count` (2 or 4) f32 that lie `offset` bytes after `pointer` (global memory, aligned to all of them),
/// or zeros where `predicate` (i1) is false, in which case nothing is read. Stays where it stands among other
/// such loads and barriers: several in a row are all on their way before the first is used.
Vals loadIf(Ir &ir, Val predicate, Val pointer, int64_t offset, int count);

/// Whether it holds in any lane of a converged warp; warp-uniform i1.
Val anyLane(Ir &ir, Val predicate);
/// In how many lanes of a converged warp it holds; warp-uniform i32.
Val countLanes(Ir &ir, Val predicate);

} // namespace flashplus::gpu
