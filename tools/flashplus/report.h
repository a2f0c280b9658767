// SPDX-License-Identifier: BSD-3-Clause
// Results as one HTML file that people look at (html_page.h): `--html` of bench, tune and emulate.
#pragma once

#include "tools/flashplus/measurements.h"

namespace flashplus::tool {

/// `sources`: what was measured, then what lies over it. `title` "" is made of the devices. InvalidArgument
/// as measurementsOf().
Result<std::string> benchReport(const std::vector<ReportSource> &sources, const std::string &title);

/// `record`: as it is written, with "cells" and "kernels" (kernel_facts.h).
std::string tuneReport(const Json &record);

/// `whole`: what `flashplus emulate --json` prints, with "kernels", "machine", "problem" and "target". Each
/// verdict of --check is shown: of the output, of what was written into a cache, of each gradient.
std::string emulateReport(const Json &whole);

} // namespace flashplus::tool
