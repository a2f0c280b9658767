// SPDX-License-Identifier: BSD-3-Clause
// GPUs by the names that people have for them, and the targets that they run.
#pragma once

#include "tools/flashplus/command.h"

#include <optional>

namespace flashplus::tool {

/// The target of a GPU such as "h100", "H100-SXM5", "rtx4090" or "RTX 4090"; nothing for a name that is not
/// in the table.
std::optional<std::string> targetOfGpu(std::string_view name);

/// As targetOfGpu(); InvalidArgument with near names, or all, for `flag`.
Result<std::string> gpuTargetFor(const std::string &flag, const std::string &name);

/// The names of the table.
std::vector<std::string> gpuNames();

/// Targets of a family of GPUs by its name, such as "hopper" or "ampere"; none for another word.
std::vector<std::string> targetsOfFamily(std::string_view name);

/// For help: names of the table, and their targets.
std::string gpuTableText();

} // namespace flashplus::tool
