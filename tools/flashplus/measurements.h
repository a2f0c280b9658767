// SPDX-License-Identifier: BSD-3-Clause
// What result files hold, read once for plots, tables and reports: all of them call a series alike.
#pragma once

#include "tools/flashplus/roofs.h"

namespace flashplus::tool {

/// A result file: of `flashplus bench --json`, or of bench/forward_gpu.py.
struct ReportSource {
  Json result;       ///< An object.
  std::string name;  ///< What its series are called where another file has them too.
  std::string where; ///< How a complaint about it begins, such as "--overlay a.json"; "": as `name`.
};

/// One series of one cell, whichever kind of file it is from.
struct Measurement {
  size_t source;           ///< Of the files.
  std::string panel;       ///< cellTitle()
  std::string title;       ///< That with its lengths.
  std::string series;      ///< For people. No other file has the same one in this panel.
  std::string schedule;    ///< "-" where the file does not say.
  bool drawn;              ///< In panels: it has a length, and is no matrix product beside the others.
  int64_t length = 0;      ///< Of the queries.
  double tflops = 0;       ///< More than 0.
  double flops = 0;        ///< 0: the file does not say.
  double bytes = 0;        ///< leastBytes()
  double share = 0;        ///< Of the roof that binds; 0 where none is known.
  std::vector<double> all; ///< Seconds of each round.

  double seconds() const { return flops / tflops / 1e12; }
};

struct Measurements {
  std::vector<Measurement> all;
  std::vector<Roofs> roofs; ///< Of each file.
  std::vector<std::string>
      models;                   ///< Of devices, each once, in the order of the files; "" where one says none.
  std::vector<size_t> model_of; ///< Of each file, which of them.
};

/// InvalidArgument, with its name, if a file is not one or holds no cell that can be drawn. Where the files
/// are of several models of devices, each series says of which it is; one that an earlier file has in the
/// same panel gets ` (name)`, so that two files can be laid over each other.
Result<Measurements> measurementsOf(const std::vector<ReportSource> &sources);

/// What a picture and a table call a series of a result file: files have "ours", people the product's name.
std::string seriesName(const std::string &series);

/// "D 128, causal, bf16, heads 32/8": what a cell of a result file is a measurement of, but for its lengths.
/// `dtype`: of the file.
std::string cellTitle(const Json &cell, const std::string &dtype);

/// "forward", "backward" or both: what was measured.
std::string passOf(const std::vector<Measurement> &all);

/// A field of any type as people read it; "-" where there is none.
std::string textOf(const Json &object, const char *name);

inline constexpr std::string_view kProduct = "FlashAttention-Plus";

} // namespace flashplus::tool
