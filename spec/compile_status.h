// SPDX-License-Identifier: BSD-3-Clause
// Codes that only compilations have, beside those of status.h, which everything includes. Their values are
// part of the C ABI in the same way.
#pragma once

#include "spec/status.h"

namespace flashplus {

/// A compilation took longer than its limit; that says nothing about the kernel.
inline constexpr StatusCode kTimedOut = StatusCode(10);
/// The compiler's process died of a fault of its own.
inline constexpr StatusCode kCompilerCrashed = StatusCode(11);

} // namespace flashplus
