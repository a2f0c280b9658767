// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "spec/status.h"
namespace flashplus {
inline constexpr StatusCode kTimedOut = StatusCode(10);
inline constexpr StatusCode kCompilerCrashed = StatusCode(11);
} // namespace flashplus
