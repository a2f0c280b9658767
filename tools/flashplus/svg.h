// SPDX-License-Identifier: BSD-3-Clause
// A picture of lines, dots and letters.
#pragma once

#include "tools/flashplus/html_page.h"

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace flashplus::tool {

/// Appends elements; coordinates in pixels.
class Svg {
public:
  Svg(int width, int height) {
    const std::string w = std::to_string(width), h = std::to_string(height);
    text_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h +
            "\" viewBox=\"0 0 " + w + " " + h +
            "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"" + w + "\" height=\"" + h +
            "\" fill=\"white\"/>\n";
  }
  void line(double x1, double y1, double x2, double y2, const char *colour, double width) {
    text_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" +
             number(y2) + "\" stroke=\"" + colour + "\" stroke-width=\"" + number(width) + "\"/>\n";
  }
  void polyline(const std::vector<std::pair<double, double>> &points, const char *colour) {
    text_ += "<polyline fill=\"none\" stroke=\"" + std::string(colour) + "\" stroke-width=\"2\" points=\"";
    for (size_t i = 0; i < points.size(); ++i)
      text_ += (i ? " " : "") + number(points[i].first) + "," + number(points[i].second);
    text_ += "\"/>\n";
  }
  void dot(double x, double y, const char *colour, const std::string &says) {
    text_ += "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"3\" fill=\"" + colour +
             "\"><title>" + escapedHtml(says) + "</title></circle>\n";
  }
  void label(double x, double y, const std::string &text, const char *anchor, const char *more = "") {
    text_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\"" + more +
             ">" + escapedHtml(text) + "</text>\n";
  }
  /// With one digit behind the point.
  static std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
  }
  std::string finish() { return text_ + "</svg>\n"; }

private:
  std::string text_;
};

} // namespace flashplus::tool
