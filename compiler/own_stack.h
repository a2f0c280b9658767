// SPDX-License-Identifier: BSD-3-Clause
// Work that needs more stack than a caller may have.
#pragma once

#include "spec/status.h"

#include <functional>

namespace flashplus {

/// Calls `work` on a thread of its own and waits for it: 16 MiB of stack, no signal is delivered to it, and
/// the state of floating point is the default, whatever the caller's is. OutOfMemory if there can be no
/// thread; then `work` has not been called.
Status runOnOwnStack(const std::function<void()> &work);

} // namespace flashplus
