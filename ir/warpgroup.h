// SPDX-License-Identifier: BSD-3-Clause
// What warps and warpgroups of sm_90a agree on: registers, named barriers, warp-uniform values, one elected
// lane.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

Val uniformWarp(Ir &ir,
                Val thread);    ///< thread / 32 as a value that the assembler knows to be warp-uniform; i32.
Val uniform(Ir &ir, Val value); ///< The first lane's i32, known to be warp-uniform.
Val electOne(Ir &ir);           ///< True in one lane of a converged warp; i1.
void increaseRegisters(Ir &ir, int registers); ///< Of a warpgroup's threads; all of its warps execute it.
void decreaseRegisters(Ir &ir, int registers);

// Named barriers 1 to 15, of `threads` threads (sync and arrive counted together).
void barrierSync(Ir &ir, Val id, int threads);
void barrierArrive(Ir &ir, Val id, int threads);

} // namespace flashplus::gpu
