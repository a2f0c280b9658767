// SPDX-License-Identifier: BSD-3-Clause
// The files that a verb writes at its end, looked at before the work whose result they hold.
#pragma once

#include "spec/status.h"

#include <initializer_list>
#include <string>
#include <string_view>

namespace flashplus::tool {

struct OutputFile {
  std::string flag, path;        ///< "" is no path, and fine.
  std::string_view endings = ""; ///< What its name must end in, such as ".html .htm"; "" for anything.
};

/// Makes the folders above the files, and fails in the name of a flag where its file could not be written or
/// is named as if it had another format. No two of a verb have an ending in common.
Status prepareOutputs(std::initializer_list<OutputFile> files);
/// The same for a file that is added to: one that is there must be writable.
Status prepareAppend(const std::string &flag, const std::string &path);

} // namespace flashplus::tool
