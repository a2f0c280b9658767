// SPDX-License-Identifier: BSD-3-Clause
// The kernel store on disk, opened as the library opens it.
#pragma once

#include "cache/store.h"
#include "tools/flashplus/command.h"

#include <memory>

namespace flashplus::tool {

/// The store of `context`; IoError with the reason when there is none on disk.
Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context);
/// The store that a context made with `flags` has, to look at or to remove from: the folder is not made.
/// InvalidArgument if a folder that the flags name is not there.
Result<std::unique_ptr<KernelStore>> openStore(const CommonFlags &flags);

} // namespace flashplus::tool
