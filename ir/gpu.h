// SPDX-License-Identifier: BSD-3-Clause
// Warp-level instructions of sm_80, one function each: what PTX offers, without a policy.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::gpu {

Val threadId(Ir &ir); ///< %tid.x, i32

/// An i32 or i64 that LLVM takes for a new one: what is computed from it is neither hoisted to where the same was computed from
/// `value` nor kept in registers from there.
Val again(Ir &ir, Val value);

void barrier(Ir &ir); ///< bar.sync 0: all threads of the block
void warpSync(Ir &ir); ///< bar.warp.sync: orders the warp's own shared-memory accesses

// Asynchronous copies of 16 bytes from global to shared memory. `bytes` (i32) below 16 zero-fills the rest.
void copyAsync16(Ir &ir, Val shared, Val global);
void copyAsync16(Ir &ir, Val shared, Val global, Val bytes);
void commitGroup(Ir &ir);
void waitGroup(Ir &ir, int pending);

/// ldmatrix.x4 of 16-bit elements: four i32 registers. Lanes 8i to 8i + 7 address the rows of matrix i.
Vals loadMatrix4(Ir &ir, Val shared, bool transposed);

/// d = a b + c, m16n8k16, a: 4 and b: 2 registers of 16-bit pairs, c and d: 4 fp32.
Vals mma16816(Ir &ir, DType dtype, const Vals &a, const Vals &b, const Vals &c);

/// Two fp32 rounded to nearest even and packed, `low` in the lower half; i32.
Val pack(Ir &ir, DType dtype, Val low, Val high);

/// Value of the lane whose number differs in the bits of `mask`; f32 or i32.
Val shuffleXor(Ir &ir, Val value, int mask);

/// Whether it holds in any lane of a converged warp; warp-uniform i1.
Val anyLane(Ir &ir, Val predicate);

/// Rounds and stores one element.
void storeElement(Ir &ir, DType dtype, Val value, Val pointer);

} // namespace flashplus::gpu
