// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous copies of 16 or 4 bytes from global to shared memory (cp.async, sm_80).
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// `bytes` (i32) below 16 zero-fills the rest.
void copyAsync16(Ir &ir, Val shared, Val global);
void copyAsync16(Ir &ir, Val shared, Val global, Val bytes);
/// `l2`: bytes (128 or 256) around `global` that a miss of the L2 cache may bring in with them; 0: no hint.
/// No `bytes`: all 16.
void copyAsync16(Ir &ir, Val shared, Val global, Val bytes, int l2);
/// 4 bytes.
void copyAsync4(Ir &ir, Val shared, Val global);
void commitGroup(Ir &ir);
void waitGroup(Ir &ir, int pending);

} // namespace flashplus::gpu
