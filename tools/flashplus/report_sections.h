// SPDX-License-Identifier: BSD-3-Clause
// Sections and texts that the reports of bench, tune and emulate share.
#pragma once

#include "tools/flashplus/html_page.h"
#include "tools/flashplus/measurements.h"

namespace flashplus::tool {

using Rows = std::vector<std::vector<std::string>>;

/// A size of a field; "-" where it is no number.
std::string bytesOf(const Json &object, const char *name);
/// "12.3 %"; "-" for 0, which stands for what is not known.
std::string percentOf(double ratio);

/// Devices, versions, clocks and dates of the files.
void addMachine(HtmlPage &page, const std::vector<ReportSource> &sources);
/// `kernels`: as kernel_facts.h makes them.
void addResources(HtmlPage &page, const Json &kernels);
void addRoofTable(HtmlPage &page, const Roofs &roofs);

/// A row of the noise's table: a problem, an implementation, and the seconds of each round.
struct NoiseRow {
  std::string title, series;
  std::vector<double> seconds;
};
/// Rows without seconds are left out.
void addNoise(HtmlPage &page, const std::vector<NoiseRow> &all);

} // namespace flashplus::tool
