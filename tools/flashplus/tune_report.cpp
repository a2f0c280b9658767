// SPDX-License-Identifier: BSD-3-Clause
// The report of tune.
#include "tools/flashplus/machine.h"
#include "tools/flashplus/noise.h"
#include "tools/flashplus/plot.h"
#include "tools/flashplus/report.h"
#include "tools/flashplus/report_sections.h"
#include "tools/flashplus/roofline.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <map>
#include <set>

namespace flashplus::tool {

namespace {

/// Of each spec, schedules.
using Schedules = std::map<std::string, std::set<std::string>>;

size_t count(const Schedules &by_spec) {
  size_t n = 0;
  for (const auto &[spec, schedules] : by_spec)
    n += schedules.size();
  return n;
}

/// What became of the schedules that were tried.
struct Funnel {
  struct Reason {
    size_t count = 0;
    std::string example;
  };
  Schedules tried, failed, fine, best;
  std::map<std::string, Reason> reasons;

  explicit Funnel(const Json &cells) {
    for (const Json &cell : cells) {
      const std::string spec = cell.value("spec", "");
      best[spec].insert(cell.value("best", ""));
      for (const Json &one : cell.value("timed", Json::array())) {
        const std::string schedule = one.value("schedule", "");
        if (!tried[spec].insert(schedule).second && !one.contains("ratio"))
          continue;
        if (one.contains("failed")) {
          failed[spec].insert(schedule);
          Reason &reason = reasons[one.value("failed", "")];
          ++reason.count;
          reason.example = schedule;
        } else if (!one.value("coarse", false)) {
          fine[spec].insert(schedule);
        }
      }
    }
  }
};

void addFunnel(HtmlPage &page, const Funnel &funnel) {
  page.section("funnel", "Schedules explored");
  const size_t all = count(funnel.tried), timed = all - count(funnel.failed), fine = count(funnel.fine);
  const auto bar = [](const char *label, size_t n, bool strong = false) {
    return HtmlPage::Bar{label, static_cast<double>(n), std::to_string(n), strong};
  };
  page.bars({bar("feasible: registers, shared memory and shapes allow them", all),
             bar("compiled, and right against fp64", timed),
             bar("timed at every length, not only pruned", fine), bar("chosen", count(funnel.best), true)});
  page.section("left-out", "Why others were left out");
  std::vector<std::pair<std::string, Funnel::Reason>> sorted(funnel.reasons.begin(), funnel.reasons.end());
  std::ranges::sort(sorted, [](const auto &a, const auto &b) { return a.second.count > b.second.count; });
  Rows why;
  for (const auto &[text, reason] : sorted)
    why.push_back({std::to_string(reason.count), text, reason.example});
  if (timed > fine)
    why.push_back({std::to_string(timed - fine), "slower than the kept ones in the coarse rounds", ""});
  if (why.empty())
    page.paragraph("None was.");
  else
    page.table({"schedules", "reason", "for example"}, why);
}

/// What the results' section, the roofline and the noise show of the cells.
struct Results {
  Rows rows;
  std::vector<NoiseRow> noise;
  std::vector<RooflinePoint> points;
};

/// Adds one cell: its bars to the page, the rest to `results`.
void addCell(HtmlPage &page, const Json &cell, Results &results) {
  const Json &problem = cell.at("problem");
  const std::string title =
      cellTitle(problem, "bf16") + ", S " + textOf(problem, "seqlen") + ", B " + textOf(problem, "batch");
  std::vector<HtmlPage::Bar> fastest;
  for (const Json &one : cell.value("timed", Json::array())) {
    if (one.contains("failed") || fastest.size() == 8)
      continue;
    const double tflops = one.value("tflops", 0.0);
    const std::string schedule = one.value("schedule", "");
    fastest.push_back(
        {schedule, tflops,
         rateText(1e12 * tflops) + ", time over today's " + numberText(one.value("ratio", 0.0), 4),
         schedule == cell.value("best", "")});
    if (one.value("coarse", false))
      continue;
    const auto seconds = one.value("seconds", std::vector<double>{});
    results.rows.push_back({title, schedule + (schedule == cell.value("reference", "") ? "  (today's)" : ""),
                            millisecondsText(1e3 * median(seconds)), rateText(1e12 * tflops),
                            numberText(one.value("ratio", 0.0), 4), knownTo(medianInterval(seconds))});
    results.noise.push_back({title, schedule, seconds});
    Json sized = problem;
    if (!sized.contains("flops"))
      sized["flops"] = tflops * 1e12 * median(seconds);
    if (const double bytes = leastBytes(sized, "bf16"); bytes > 0 && tflops > 0)
      results.points.push_back({schedule.substr(0, schedule.find(' ')), title + ", " + schedule,
                                sized.value("flops", 0.0) / bytes, 1e12 * tflops});
  }
  page.paragraph(title);
  page.bars(fastest);
}

void addRoofline(HtmlPage &page, const std::vector<RooflinePoint> &points, const Roofs &roofs) {
  page.section("roofline", "Roofline");
  std::set<std::string> series;
  for (const RooflinePoint &point : points)
    series.insert(point.series);
  if (!points.empty())
    page.svg(drawRoofline(points, roofs, seriesColours(series)));
  addRoofTable(page, roofs);
}

} // namespace

std::string tuneReport(const Json &record) {
  const std::string model = deviceModel(record);
  HtmlPage page("Schedules of attention on " + (model.empty() ? "this machine" : model),
                "flashplus tune, " + textOf(record, "date"));
  addFunnel(page, Funnel(record.at("cells")));
  page.section("results", "The fastest of each problem");
  Results results;
  for (const Json &cell : record.at("cells"))
    addCell(page, cell, results);
  page.table({"problem", "schedule", "time", "speed", "time over today's", "known to"}, results.rows, 2);
  addRoofline(page, results.points, roofsOf(record));
  addResources(page, record.value("kernels", Json::array()));
  addNoise(page, results.noise);
  addMachine(page, {{record, "", ""}});
  return page.text();
}

} // namespace flashplus::tool
