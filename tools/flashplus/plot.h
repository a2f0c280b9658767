// SPDX-License-Identifier: BSD-3-Clause
// Result files as a picture: a panel for each head dim, mask and pass, in it TFLOP/s against sequence length,
// a line a series.
#pragma once

#include "tools/flashplus/measurements.h"

#include <map>
#include <set>

namespace flashplus::tool {

enum class Metric {
  Speed,     ///< TFLOP/s
  Time,      ///< Microseconds, on a logarithmic axis.
  RoofShare, ///< Percent of the roof that binds (roofs.h); cells without a known roof are left out.
};

struct Panel {
  std::string title;
  /// Series -> (sequence length, value of the metric), by rising length.
  std::map<std::string, std::map<int64_t, double>> lines;
  Metric metric = Metric::Speed;
};

/// A colour for each series of all that is on one page. Implementations that are known have the same one in
/// every picture.
using Colours = std::map<std::string, std::string>;
Colours seriesColours(const std::set<std::string> &series);

/// One for each head dim, mask and pass that was measured. Matrix products are left out.
std::vector<Panel> panelsOf(const Measurements &measurements, Metric metric = Metric::Speed);
/// The series of panels.
std::set<std::string> seriesOf(const std::vector<Panel> &panels);

/// SVG text. Deterministic. Speeds below 1 TFLOP/s are drawn in GFLOP/s. An empty title takes no room.
/// `colours` has every series of the panels.
std::string drawPanels(const std::vector<Panel> &panels, const std::string &title, const Colours &colours);

} // namespace flashplus::tool
