// SPDX-License-Identifier: BSD-3-Clause
// Writes packs (cache/pack_format.h).
#pragma once

#include "cache/file_ops.h"
#include "cache/pack_format.h"
#include "cache/source.h"
#include "spec/status.h"

#include <string>
#include <vector>

namespace flashplus {

/// What goes into a pack: good entries of `source`, as its list() gave them, all of one build.
struct PackContents {
  const KernelSource *source = nullptr;
  std::vector<EntryInfo> entries;
  std::vector<PackText> texts;
};

/// Writes the pack at `path` and gives its size. The same contents give the same bytes, in whatever order.
/// The file appears whole or not at all, in the place of a pack that was there; another file there is not
/// touched. InvalidArgument names what is wrong with `path`, or an entry of another build; IoError if it
/// can't be written, or an entry has changed since it was listed.
Result<int64_t> writePack(const std::string &path, PackContents contents,
                          const FileOps &ops = systemFileOps());

} // namespace flashplus
