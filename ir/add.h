// SPDX-License-Identifier: BSD-3-Clause
// What moves a fragment on from the registers of sm_90: additions in global memory, and transposed stores.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// Adds four f32 to those at `pointer` + `offset` (global memory, aligned to 16 bytes), each one for itself:
/// others may add at the same time, in any order.
void add4(Ir &ir, Val pointer, int64_t offset, llvm::ArrayRef<Val> values);

/// stmatrix.x4 of 16-bit elements: rows of matrix i (loadMatrix4), or its columns if `transposed`, go
/// where lanes 8i to 8i + 7 say. `shared`: i32 address, aligned to 16 bytes.
void storeMatrix4(Ir &ir, Val shared, llvm::ArrayRef<Val> matrices, bool transposed);

} // namespace flashplus::gpu
