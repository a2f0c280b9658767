// SPDX-License-Identifier: BSD-3-Clause
// How many processors there are to use. Asked of the system at every call, and not cheap: a file is read.
// Thread-safe; nothing here fails, what cannot be read limits nothing.
#pragma once

#include <optional>
#include <string_view>

namespace flashplus {

/// How many processors this process may keep busy: those it may run on, or fewer where its container has a
/// CPU quota (which the affinity mask does not show). At least 1.
int usableProcessors();

/// Processors that the text of a cgroup's cpu.max ("200000 100000": microseconds in a period, or "max ...")
/// allows, rounded up; nothing if it sets no limit or is not such text.
std::optional<int> processorsOfQuota(std::string_view cpu_max);

} // namespace flashplus
