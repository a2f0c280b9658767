// SPDX-License-Identifier: BSD-3-Clause
// Result files as a picture: a panel for each head dim, mask and pass, in it TFLOP/s against sequence length,
// a line a series.
#pragma once

#include "tools/flashplus/command.h"

#include <map>

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

/// What a picture and a table call a series of a result file: files have "ours", people the product's name.
std::string seriesName(const std::string &series);

/// A colour for each of these series. Implementations that are known have the same one in every picture.
std::map<std::string, std::string> seriesColours(const std::vector<std::string> &series);

/// "D 128, causal, bf16, heads 32/8": what a cell of a result file is a measurement of, but for its lengths.
/// `dtype`: of the file.
std::string cellTitle(const Json &cell, const std::string &dtype);

/// Adds what a result file holds: one of `flashplus bench --json` (a series a cell) or of
/// bench/forward_gpu.py (several). With `model`, ` (model)` stands behind each series. One that is there
/// already gets ` (name)`, so that two files can be laid over each other. GEMM lines are left out.
/// InvalidArgument if the file holds no cells.
Status addToPanels(const Json &result, const std::string &name, const std::string &model,
                   std::vector<Panel> &panels, Metric metric = Metric::Speed);

/// "forward", "backward" or both: what the panels show.
std::string passOf(const std::vector<Panel> &panels);

/// SVG text. Deterministic. Speeds below 1 TFLOP/s are drawn in GFLOP/s. An empty title takes no room.
std::string drawPanels(const std::vector<Panel> &panels, const std::string &title);

} // namespace flashplus::tool
