// SPDX-License-Identifier: BSD-3-Clause
// Plain-text tables for people. Columns are as wide as their widest cell; no colour, no box drawing.
#pragma once

#include <string>
#include <vector>

namespace flashplus::tool {

class Table {
public:
  /// Without headers the table is a list of "name  value" rows.
  explicit Table(std::vector<std::string> headers = {}) : headers_(std::move(headers)) {}
  /// Cells from `numeric_from` on are right-aligned (default: none).
  void alignRightFrom(size_t column) { right_from_ = column; }
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string text() const;
  void print() const; ///< To stdout.

private:
  std::vector<std::string> headers_;
  std::vector<std::vector<std::string>> rows_;
  size_t right_from_ = static_cast<size_t>(-1);
};

/// "12.3 ms", "85 us": three significant digits.
std::string millisecondsText(double milliseconds);
/// "19.4 GFLOP/s", "612 TFLOP/s": in the unit in which it is one or more.
std::string rateText(double flops_per_second);
/// "3.4 MiB"
std::string bytesText(double bytes);
/// printf("%.*g")
std::string numberText(double value, int digits = 3);

} // namespace flashplus::tool
