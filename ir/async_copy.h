// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous copies of 16 or 4 bytes from global to shared memory (cp.async, sm_80).
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

/// `bytes` (i32) below 16 zero-fills the rest.
void copyAsync16(Ir &ir, Val shared, Val global);
void copyAsync16(Ir &ir, Val shared, Val global, Val bytes);
/// 4 bytes.
void copyAsync4(Ir &ir, Val shared, Val global);
void commitGroup(Ir &ir);
void waitGroup(Ir &ir, int pending);

} // namespace flashplus::gpu
