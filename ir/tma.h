// SPDX-License-Identifier: BSD-3-Clause
// Bulk tensor copies of sm_90a (TMA).
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// How long the second-level cache should keep what a copy reads.
enum class Keep { Normal, First, Last };

/// One box of tensor map `map` (generic pointer) at (column, row, head, batch), i32 each, into shared memory.
/// Elements outside the tensor arrive as zeros and count. Executed by one thread.
void loadBox(Ir &ir, Val shared, Val map, const Vals &coordinates, Val barrier, Keep keep);
void prefetchMap(Ir &ir, Val map);

/// Makes this thread's ordinary writes to shared memory visible to products and bulk copies.
void fenceAsyncShared(Ir &ir);

} // namespace flashplus::gpu
