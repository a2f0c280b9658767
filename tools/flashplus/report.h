// SPDX-License-Identifier: BSD-3-Clause
// Results as one HTML file that people look at (html_page.h): `--html` of bench, tune and emulate.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// A result file: of `flashplus bench --json`, or of bench/forward_gpu.py.
struct ReportSource {
  Json result;
  std::string name; ///< What its series are called where another file has them too.
};

/// `sources`: what was measured, then what lies over it. `title` "" is made of the devices. InvalidArgument
/// if one holds no cells.
Result<std::string> benchReport(const std::vector<ReportSource> &sources, const std::string &title);

/// `record`: as it is written, with "cells" and "kernels" (kernel_facts.h).
std::string tuneReport(const Json &record);

/// `whole`: what `flashplus emulate --json` prints, with "kernels", "machine", "problem" and "target".
std::string emulateReport(const Json &whole);

} // namespace flashplus::tool
