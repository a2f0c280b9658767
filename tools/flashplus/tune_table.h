// SPDX-License-Identifier: BSD-3-Clause
// Default tables from tuning records: templates/forward/*_table.inc.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// Writes the rows of `algorithm` (templates/schedule_table.h) that `records` justify to `path`, "" = stdout.
/// The same records give the same bytes on every machine.
Result<int> writeTable(const std::string &algorithm, const std::vector<std::string> &records,
                       const std::string &path);

} // namespace flashplus::tool
