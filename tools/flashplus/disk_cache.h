// SPDX-License-Identifier: BSD-3-Clause
// The kernel store on disk, opened as the library opens it.
#pragma once

#include "cache/store.h"
#include "tools/flashplus/command.h"

#include <memory>

namespace flashplus::tool {

/// The store of `context`, or of a context made with `flags`; IoError with the reason when there is none on
/// disk.
Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context);
Result<std::unique_ptr<KernelStore>> openStore(const CommonFlags &flags);

} // namespace flashplus::tool
