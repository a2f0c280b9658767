// SPDX-License-Identifier: BSD-3-Clause
// The kernel store on disk, opened as the library opens it.
#pragma once

#include "cache/source.h"
#include "cache/store.h"
#include "tools/flashplus/command.h"

#include <memory>
#include <string>
#include <vector>

namespace flashplus::tool {

/// The store of `context`; IoError with the reason when there is none on disk.
Result<std::unique_ptr<KernelStore>> openStore(flashplus_context *context);
/// The store that a context made with `flags` has, to look at: the folder is not made. InvalidArgument if a
/// folder that the flags name is not there.
Result<std::unique_ptr<KernelStore>> openStore(const CommonFlags &flags);
/// The same to remove from; where there is no folder there is nothing to remove (isThere()).
Result<std::unique_ptr<KernelStore>> openStoreToRemove(const CommonFlags &flags);
/// The same to write to: the folder is made.
Result<std::unique_ptr<KernelStore>> openStoreToWrite(const CommonFlags &flags);

/// All that a context made with `flags` looks kernels up in, in this order, as it is used: folders and packs
/// of $FLASHPLUS_CACHE_PATH, then the cache.
struct CacheSources {
  std::vector<std::unique_ptr<KernelSource>> all;
  std::string build; ///< Of the library.
};
Result<CacheSources> openSources(flashplus_context *context);

/// The pack at `path`, of whatever build; IoError, one sentence, if it can't be used.
Result<std::unique_ptr<KernelSource>> openPackFile(const std::string &path);

/// The build id of the library that is used.
Result<std::string> libraryBuild(flashplus_context *context);

} // namespace flashplus::tool
