// SPDX-License-Identifier: BSD-3-Clause
// Result files as a picture: a panel for each head dim, mask and pass, in it TFLOP/s against sequence length,
// a line a series.
#pragma once

#include "tools/flashplus/command.h"

#include <map>

namespace flashplus::tool {

struct Panel {
  std::string title;
  /// Series -> (sequence length, TFLOP/s), by rising length.
  std::map<std::string, std::map<int64_t, double>> lines;
};

/// Adds what a result file holds: one of `flashplus bench --json` (a series a cell) or of
/// bench/forward_gpu.py (several). With `model`, ` (model)` stands behind each series. One that is there
/// already gets ` (name)`, so that two files can be laid over each other. GEMM lines are left out.
/// InvalidArgument if the file holds no cells.
Status addToPanels(const Json &result, const std::string &name, const std::string &model,
                   std::vector<Panel> &panels);

/// "forward", "backward" or both: what the panels show.
std::string passOf(const std::vector<Panel> &panels);

/// SVG text. Deterministic.
std::string drawPanels(const std::vector<Panel> &panels, const std::string &title);

} // namespace flashplus::tool
