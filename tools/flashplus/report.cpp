// SPDX-License-Identifier: BSD-3-Clause
// The report of bench.
#include "tools/flashplus/report.h"

#include "tools/flashplus/noise.h"
#include "tools/flashplus/plot.h"
#include "tools/flashplus/report_sections.h"
#include "tools/flashplus/roofline.h"
#include "tools/flashplus/table.h"

namespace flashplus::tool {

namespace {

void addPanels(HtmlPage &page, const Measurements &measurements, Metric metric, const Colours &colours) {
  const std::vector<Panel> panels = panelsOf(measurements, metric);
  if (panels.empty())
    page.paragraph(metric == Metric::RoofShare
                       ? "No roof of this machine is known; --peak and --roof say them."
                       : "The files do not say how many operations a problem has.");
  else
    page.svg(drawPanels(panels, "", colours));
}

void addResults(HtmlPage &page, const Measurements &measurements) {
  page.section("results", "Results");
  Rows rows;
  for (const Measurement &m : measurements.all)
    rows.push_back({m.title, m.series, millisecondsText(1e3 * m.seconds()), rateText(1e12 * m.tflops),
                    percentOf(m.share), knownTo(medianInterval(m.all)), m.schedule});
  page.table({"problem", "implementation", "time", "speed", "of the roof", "known to", "schedule"}, rows, 2);
}

/// One for each model of device: a point is nothing under the roofs of another.
void addRooflines(HtmlPage &page, const Measurements &measurements, const Colours &colours) {
  page.section("roofline", "Roofline");
  for (size_t model = 0; model < measurements.models.size(); ++model) {
    Roofs roofs;
    for (size_t i = 0; i < measurements.roofs.size(); ++i)
      if (measurements.model_of[i] == model)
        roofs = roofs.orElse(measurements.roofs[i]);
    std::vector<RooflinePoint> points;
    for (const Measurement &m : measurements.all)
      if (measurements.model_of[m.source] == model && m.bytes > 0 && m.flops > 0)
        points.push_back({m.series, m.title + ", " + m.series + ": " + rateText(1e12 * m.tflops),
                          m.flops / m.bytes, 1e12 * m.tflops});
    if (measurements.models.size() > 1)
      page.paragraph(measurements.models[model].empty() ? "A device that is not named"
                                                        : measurements.models[model]);
    if (!points.empty())
      page.svg(drawRoofline(points, roofs, colours));
    addRoofTable(page, roofs);
  }
}

} // namespace

Result<std::string> benchReport(const std::vector<ReportSource> &sources, const std::string &title) {
  Result<Measurements> read = measurementsOf(sources);
  if (!read)
    return read.status();
  const Measurements &measurements = *read;
  std::string where;
  for (const std::string &model : measurements.models)
    if (!model.empty())
      where += (where.empty() ? "" : " and ") + model;
  std::set<std::string> series;
  for (const Measurement &m : measurements.all)
    series.insert(m.series);
  const Colours colours = seriesColours(series);

  HtmlPage page(
      title.empty() ? "Attention " + passOf(measurements.all) + (where.empty() ? "" : " on " + where) : title,
      "flashplus bench, " + textOf(sources.front().result, "date"));
  page.section("speed", "Speed");
  addPanels(page, measurements, Metric::Speed, colours);
  page.section("time", "Time");
  addPanels(page, measurements, Metric::Time, colours);
  page.section("roof-share", "Share of the roof that binds");
  addPanels(page, measurements, Metric::RoofShare, colours);
  addResults(page, measurements);
  addRooflines(page, measurements, colours);
  Json kernels = Json::array();
  for (const ReportSource &source : sources)
    for (const Json &kernel : source.result.value("kernels", Json::array()))
      kernels.push_back(kernel);
  addResources(page, kernels);
  std::vector<NoiseRow> noise;
  for (const Measurement &m : measurements.all)
    noise.push_back({m.title, m.series, m.all});
  addNoise(page, noise);
  addMachine(page, sources);
  return page.text();
}

} // namespace flashplus::tool
