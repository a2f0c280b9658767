// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/plot.h"

#include "tools/flashplus/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

namespace flashplus::tool {

namespace {

// Okabe and Ito's colours, which people with colour blindness tell apart.
constexpr std::pair<std::string_view, const char *> kKnown[] = {{kProduct, "#d55e00"},
                                                                {"cudnn", "#cc79a7"},
                                                                {"fa2", "#009e73"},
                                                                {"fa3", "#0072b2"},
                                                                {"torch", "#56b4e9"}};
constexpr const char *kColours[] = {"#e69f00", "#000000", "#7a5195", "#8c6d31",
                                    "#5f9ea0", "#a05195", "#637939"};
constexpr int kWidth = 400, kHeight = 270;                      // of a panel
constexpr int kLeft = 58, kRight = 16, kTop = 34, kBottom = 44; // around its axes
constexpr int kTitle = 40, kLegend = 30;

/// 1, 2 or 5 times a power of ten, so that `most` takes at most six steps.
double tickStep(double most) {
  const double power = std::pow(10.0, std::floor(std::log10(std::max(most, 1e-12) / 6)));
  for (double factor : {1.0, 2.0, 5.0})
    if (most <= 6 * factor * power)
      return factor * power;
  return 10 * power;
}

std::string shortLength(int64_t length) {
  return length >= 1024 && length % 1024 == 0 ? std::to_string(length / 1024) + "k" : std::to_string(length);
}

/// How the values of a panel are drawn.
struct Axis {
  const char *label;
  double unit = 1; ///< Of what is drawn, in what the panel holds.
  bool logarithmic = false;
};

Axis axisOf(const Panel &panel, double most) {
  if (panel.metric == Metric::Time)
    return {"us", 1, true};
  if (panel.metric == Metric::RoofShare)
    return {"% of the roof", 1, false};
  return most < 1 ? Axis{"GFLOP/s", 1e-3, false} : Axis{"TFLOP/s", 1, false};
}

void drawPanel(Svg &svg, const Panel &panel, const Colours &colours, double x0, double y0) {
  std::set<int64_t> lengths;
  double most = 0, least = INFINITY;
  for (const auto &[series, points] : panel.lines)
    for (auto [length, value] : points) {
      lengths.insert(length);
      most = std::max(most, value);
      least = std::min(least, value);
    }
  const Axis axis = axisOf(panel, most);
  most /= axis.unit, least /= axis.unit;
  const double left = x0 + kLeft, right = x0 + kWidth - kRight, top = y0 + kTop,
               bottom = y0 + kHeight - kBottom;
  const double first = std::log2(static_cast<double>(*lengths.begin())),
               last = std::log2(static_cast<double>(*lengths.rbegin()));
  auto x = [&](int64_t length) {
    if (last == first)
      return (left + right) / 2;
    const double inset = 12;
    return left + inset +
           (right - left - 2 * inset) * (std::log2(static_cast<double>(length)) - first) / (last - first);
  };
  const double step = tickStep(most), highest = std::max(step, std::ceil(most / step) * step);
  const double decade = std::floor(std::log10(std::max(least, 1e-9))),
               decades = std::max(1.0, std::ceil(std::log10(std::max(most, 1e-9)) - 1e-9) - decade);
  auto y = [&](double value) {
    return bottom -
           (bottom - top) * (axis.logarithmic ? (std::log10(value) - decade) / decades : value / highest);
  };
  svg.label((left + right) / 2, y0 + 20, panel.title, "middle", " font-size=\"14\"");
  auto tick = [&](double value, bool first_one) {
    svg.line(left, y(value), right, y(value), first_one ? "#444444" : "#dddddd", 1);
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    svg.label(left - 6, y(value) + 4, text, "end");
  };
  if (axis.logarithmic)
    for (int i = 0; i <= static_cast<int>(decades); ++i)
      tick(std::pow(10.0, decade + i), i == 0);
  else
    for (double value = 0; value <= highest + step / 2; value += step)
      tick(value, value == 0);
  svg.line(left, top, left, bottom, "#444444", 1);
  double free_from = -1e9; // labels of lengths that lie close together are thinned out
  for (int64_t length : lengths) {
    svg.line(x(length), bottom, x(length), bottom + 4, "#444444", 1);
    if (x(length) < free_from)
      continue;
    svg.label(x(length), bottom + 17, shortLength(length), "middle");
    free_from = x(length) + 30;
  }
  svg.label((left + right) / 2, bottom + 35, "sequence length", "middle", " fill=\"#444444\"");
  const std::string turn = " fill=\"#444444\" transform=\"rotate(-90 " + Svg::number(x0 + 14) + " " +
                           Svg::number((top + bottom) / 2) + ")\"";
  svg.label(x0 + 14, (top + bottom) / 2, axis.label, "middle", turn.c_str());
  for (const auto &[series, points] : panel.lines) {
    std::vector<std::pair<double, double>> line;
    for (auto [length, value] : points)
      line.emplace_back(x(length), y(value / axis.unit));
    svg.polyline(line, colours.at(series).c_str());
    for (auto [length, value] : points)
      svg.dot(x(length), y(value / axis.unit), colours.at(series).c_str(),
              series + ", " + std::to_string(length) + ": " + Svg::number(value / axis.unit) + " " +
                  axis.label);
  }
}

} // namespace

namespace {

/// The product first, then by name.
std::vector<std::string> inOrder(const std::set<std::string> &series) {
  std::vector<std::string> order;
  for (bool product : {true, false})
    for (const std::string &name : series)
      if (name.starts_with(kProduct) == product)
        order.push_back(name);
  return order;
}

} // namespace

Colours seriesColours(const std::set<std::string> &series) {
  Colours colours;
  size_t others = 0;
  for (const std::string &name : inOrder(series)) {
    const auto known =
        std::ranges::find(kKnown, std::string_view(name), [](const auto &k) { return k.first; });
    colours[name] = known != std::end(kKnown) ? known->second : kColours[others++ % std::size(kColours)];
  }
  return colours;
}

std::vector<Panel> panelsOf(const Measurements &measurements, Metric metric) {
  std::vector<Panel> panels;
  for (const Measurement &m : measurements.all) {
    const double value = metric == Metric::Time        ? 1e6 * m.seconds()
                         : metric == Metric::RoofShare ? 100 * m.share
                                                       : m.tflops;
    if (!m.drawn || !(value > 0))
      continue;
    auto panel = std::ranges::find(panels, m.panel, &Panel::title);
    if (panel == panels.end())
      panel = panels.insert(panels.end(), {m.panel, {}, metric});
    panel->lines[m.series][m.length] = value;
  }
  return panels;
}

std::set<std::string> seriesOf(const std::vector<Panel> &panels) {
  std::set<std::string> series;
  for (const Panel &panel : panels)
    for (const auto &[name, points] : panel.lines)
      series.insert(name);
  return series;
}

std::string drawPanels(const std::vector<Panel> &panels, const std::string &title, const Colours &colours) {
  const std::vector<std::string> order = inOrder(seriesOf(panels));
  // Legend entries are wrapped by their width, at about 7 pixels a letter.
  const int columns = panels.size() == 1 ? 1 : panels.size() % 3 == 0 && panels.size() != 6 ? 3 : 2;
  const int rows = (static_cast<int>(panels.size()) + columns - 1) / columns;
  const int width = columns * kWidth;
  std::vector<std::pair<double, int>> places;
  double at = 24;
  int line = 0;
  for (const std::string &name : order) {
    const double needed = 40 + 7.0 * static_cast<double>(name.size());
    if (at > 24 && at + needed > width) {
      at = 24;
      ++line;
    }
    places.emplace_back(at, line);
    at += needed;
  }
  const int head = title.empty() ? 0 : kTitle;
  Svg svg(width, head + rows * kHeight + kLegend * (line + 1));
  if (head)
    svg.label(width / 2.0, 25, title, "middle", " font-size=\"15\" font-weight=\"bold\"");
  for (size_t i = 0; i < panels.size(); ++i)
    drawPanel(svg, panels[i], colours, static_cast<double>(static_cast<int>(i) % columns * kWidth),
              static_cast<double>(head + static_cast<int>(i) / columns * kHeight));
  for (size_t i = 0; i < order.size(); ++i) {
    const double y = head + rows * kHeight + kLegend * places[i].second + 14;
    svg.line(places[i].first, y, places[i].first + 22, y, colours.at(order[i]).c_str(), 2);
    svg.label(places[i].first + 28, y + 4, order[i], "start");
  }
  return svg.finish();
}

} // namespace flashplus::tool
