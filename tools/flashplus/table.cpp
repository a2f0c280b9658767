// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace flashplus::tool {

std::string Table::text() const {
  std::vector<size_t> widths;
  auto measure = [&](const std::vector<std::string> &row) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  };
  measure(headers_);
  for (const auto &row : rows_)
    measure(row);
  std::string out;
  auto put = [&](const std::vector<std::string> &row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      std::string padding(widths[i] - row[i].size(), ' ');
      line += (i ? "  " : "") + (i >= right_from_ ? padding + row[i] : row[i] + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  if (!headers_.empty())
    put(headers_);
  for (const auto &row : rows_)
    put(row);
  return out;
}

void Table::print() const { std::fputs(text().c_str(), stdout); }

std::string numberText(double value, int digits) {
  char buffer[40];
  // %g would write 123 as 1.2e+02 with two digits: whole numbers keep all of theirs.
  if (std::fabs(value) >= std::pow(10.0, digits) && std::fabs(value) < 1e7)
    std::snprintf(buffer, sizeof buffer, "%.0f", value);
  else
    std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  return buffer;
}

std::string millisecondsText(double milliseconds) {
  if (milliseconds < 1)
    return numberText(milliseconds * 1e3) + " us";
  if (milliseconds < 10000)
    return numberText(milliseconds) + " ms";
  return numberText(milliseconds / 1e3) + " s";
}

std::string rateText(double flops_per_second) {
  return flops_per_second >= 1e12  ? numberText(flops_per_second / 1e12, 4) + " TFLOP/s"
         : flops_per_second >= 1e9 ? numberText(flops_per_second / 1e9, 4) + " GFLOP/s"
                                   : numberText(flops_per_second / 1e6, 4) + " MFLOP/s";
}

std::string bytesText(double bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit)
    bytes /= 1024;
  return numberText(bytes) + " " + units[unit];
}

} // namespace flashplus::tool
