// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/roofline.h"

#include "tools/flashplus/svg.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

std::string drawRoofline(const std::vector<RooflinePoint> &points, const Roofs &roofs,
                         const Colours &colours) {
  constexpr double kWidth = 760, kHeight = 380, kLeft = 90, kRight = 20, kTop = 16, kBottom = 80;
  double x_least = INFINITY, x_most = 0, y_least = INFINITY, y_most = roofs.flops;
  std::vector<std::string> order;
  for (const RooflinePoint &p : points) {
    x_least = std::min(x_least, p.intensity), x_most = std::max(x_most, p.intensity);
    y_least = std::min(y_least, p.flops), y_most = std::max(y_most, p.flops);
    if (std::ranges::find(order, p.series) == order.end())
      order.push_back(p.series);
  }
  if (roofs.flops > 0 && roofs.bytes > 0) { // the ridge is to be seen
    x_least = std::min(x_least, roofs.flops / roofs.bytes / 2);
    x_most = std::max(x_most, roofs.flops / roofs.bytes * 2);
  }
  const auto down = [](double value) { return std::floor(std::log10(value) + 1e-9); };
  const auto up = [](double value) { return std::ceil(std::log10(value) - 1e-9); };
  const double x0 = down(x_least), x1 = std::max(x0 + 1, up(x_most)), y0 = down(y_least),
               y1 = std::max(y0 + 1, up(y_most));
  const auto x = [&](double v) {
    return kLeft + (kWidth - kLeft - kRight) * (std::log10(v) - x0) / (x1 - x0);
  };
  const auto y = [&](double v) {
    return kHeight - kBottom - (kHeight - kTop - kBottom) * (std::log10(v) - y0) / (y1 - y0);
  };
  Svg svg(static_cast<int>(kWidth), static_cast<int>(kHeight));
  for (double e = x0; e <= x1; ++e) {
    const double at = x(std::pow(10, e));
    svg.line(at, kTop, at, kHeight - kBottom, "#dddddd", 1);
    svg.label(at, kHeight - kBottom + 17, numberText(std::pow(10, e)), "middle");
  }
  for (double e = y0; e <= y1; ++e) {
    const double at = y(std::pow(10, e));
    svg.line(kLeft, at, kWidth - kRight, at, "#dddddd", 1);
    svg.label(kLeft - 6, at + 4, rateText(std::pow(10, e)), "end");
  }
  svg.label((kLeft + kWidth - kRight) / 2, kHeight - kBottom + 36, "operations a byte of the operands",
            "middle", " fill=\"#444444\"");
  const double left = std::pow(10, x0), right = std::pow(10, x1);
  if (roofs.bytes > 0) {
    const double end = roofs.flops > 0 ? std::min(right, roofs.flops / roofs.bytes) : right;
    const double begin = std::max(left, std::pow(10, y0) / roofs.bytes);
    if (begin < end && end * roofs.bytes <= std::pow(10, y1) * 1.001)
      svg.polyline({{x(begin), y(begin * roofs.bytes)}, {x(end), y(end * roofs.bytes)}}, "#444444");
  }
  if (roofs.flops > 0) {
    const double begin = roofs.bytes > 0 ? std::clamp(roofs.flops / roofs.bytes, left, right) : left;
    svg.polyline({{x(begin), y(roofs.flops)}, {x(right), y(roofs.flops)}}, "#444444");
    svg.label(x(right) - 4, y(roofs.flops) - 5, rateText(roofs.flops), "end", " fill=\"#444444\"");
  }
  for (const RooflinePoint &p : points)
    svg.dot(x(p.intensity), y(p.flops), colours.at(p.series).c_str(), p.says);
  double at = kLeft;
  for (const std::string &series : order) {
    svg.dot(at, kHeight - 18, colours.at(series).c_str(), series);
    svg.label(at + 8, kHeight - 14, series, "start");
    at += 40 + 7.0 * static_cast<double>(series.size());
  }
  return svg.finish();
}

} // namespace flashplus::tool
