// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// Every field of flashplus_counters under its own name.
Json countersJson(const flashplus_counters &counters);

} // namespace flashplus::tool
