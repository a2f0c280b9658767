// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/report.h"

#include "tools/flashplus/html_page.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/noise.h"
#include "tools/flashplus/plot.h"
#include "tools/flashplus/roofline.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <set>

namespace flashplus::tool {

namespace {

using Rows = std::vector<std::vector<std::string>>;

/// A field of any type as people read it; "-" where there is none.
std::string textOf(const Json &object, const char *name) {
  const auto at = object.find(name);
  return at == object.end() || at->is_null() ? "-" : at->is_string() ? at->get<std::string>() : at->dump();
}

std::string bytesOf(const Json &object, const char *name) {
  const auto at = object.find(name);
  return at == object.end() || !at->is_number() ? "-" : bytesText(at->get<double>());
}

std::string deviceModel(const Json &result) {
  if (result.contains("device") && result["device"].is_object())
    return result["device"].value("model", "");
  return result.contains("gpu") && result["gpu"].is_object() ? result["gpu"].value("name", "") : "";
}

std::string percentOf(double ratio) { return ratio > 0 ? numberText(100 * ratio) + " %" : "-"; }

/// One series of one cell, whichever kind of file it is from.
struct Measurement {
  std::string title, series;
  const Json *cell;
  std::vector<double> seconds;
  double tflops = 0;
};

std::vector<Measurement> measurementsOf(const ReportSource &source, const std::set<std::string> &taken) {
  std::vector<Measurement> out;
  for (const Json &cell : source.result.at("cells")) {
    const auto add = [&](const std::string &plain, double tflops, const Json &seconds) {
      Measurement m;
      m.series = seriesName(plain);
      if (taken.contains(m.series))
        m.series += " (" + source.name + ")";
      m.cell = &cell;
      m.tflops = tflops;
      m.title = cellTitle(cell, source.result.value("dtype", "bf16")) + ", S " + textOf(cell, "seqlen") +
                ", B " + textOf(cell, "batch");
      if (seconds.is_array())
        for (const Json &s : seconds)
          if (s.is_number())
            m.seconds.push_back(s.get<double>());
      if (tflops > 0)
        out.push_back(std::move(m));
    };
    const Json none;
    const auto seconds = cell.find("seconds");
    if (const Json &tflops = cell.at("tflops"); tflops.is_object()) {
      for (const auto &[series, value] : tflops.items())
        if (value.is_number())
          add(series, value.get<double>(),
              seconds != cell.end() && seconds->is_object() && seconds->contains(series) ? (*seconds)[series]
                                                                                         : none);
    } else if (tflops.is_number()) {
      add(cell.value("series", "ours"), tflops.get<double>(), seconds != cell.end() ? *seconds : none);
    }
  }
  return out;
}

void addMachine(HtmlPage &page, const std::vector<ReportSource> &sources) {
  page.section("machine", "Machine and versions");
  Rows rows;
  for (const ReportSource &source : sources) {
    const Json &r = source.result;
    if (sources.size() > 1)
      rows.push_back({"file", source.name});
    rows.push_back({"device", deviceModel(r)});
    if (r.contains("device") && r["device"].is_object())
      for (const auto &[key, value] : r["device"].items())
        if (key != "model")
          rows.push_back({"  " + key, value.is_string() ? value.get<std::string>() : value.dump()});
    if (r.contains("gpu") && r["gpu"].is_object())
      for (const auto &[key, value] : r["gpu"].items())
        rows.push_back({"  " + key, value.is_string() ? value.get<std::string>() : value.dump()});
    if (r.contains("version"))
      rows.push_back({"FlashAttention-Plus", textOf(r, "version") + ", build " + textOf(r, "build")});
    for (const char *peer : {"torch", "cudnn", "flash_attn", "flash_attn_3", "triton"})
      if (r.contains(peer))
        rows.push_back({peer, textOf(r, peer)});
    rows.push_back({"date", textOf(r, "date")});
    if (r.contains("clocks") && r["clocks"].is_array() && !r["clocks"].empty())
      rows.push_back({"clocks, first round", r["clocks"].front().dump()});
    if (r.contains("clocks") && r["clocks"].is_array() && r["clocks"].size() > 1)
      rows.push_back({"clocks, last round", r["clocks"].back().dump()});
  }
  page.table({"", ""}, rows);
}

void addResources(HtmlPage &page, const Json &kernels) {
  page.section("resources", "Resources of the kernels");
  Rows rows;
  for (const Json &k : kernels) {
    const std::string threads = textOf(k, "threads");
    const bool gpu = threads != "0"; // what a block has means nothing of a CPU's code
    rows.push_back({textOf(k, "schedule"), textOf(k, "spec"), textOf(k, "kind"), gpu ? threads : "-",
                    textOf(k, "registers"), bytesOf(k, "spill_bytes"), bytesOf(k, "stack_bytes"),
                    gpu ? bytesOf(k, "shared_memory") : "-", bytesOf(k, "code_bytes")});
  }
  if (rows.empty())
    page.paragraph("The file says nothing of its kernels.");
  else
    page.table(
        {"schedule", "kernel", "code", "threads", "registers", "spilled", "stack", "shared memory", "size"},
        rows, 3);
  page.paragraph(
      "\"-\": not known. Registers and spills are an assembler's to tell, so of PTX and of a CPU's code "
      "there are none.");
}

void addRoofTable(HtmlPage &page, const Roofs &roofs) {
  page.table(
      {"roof", "at most", "from"},
      {{"arithmetic", roofs.flops > 0 ? rateText(roofs.flops) : "-", roofs.flops_source},
       {"memory", roofs.bytes > 0 ? numberText(roofs.bytes / 1e9) + " GB/s" : "-", roofs.bytes_source}});
}

void addNoise(HtmlPage &page,
              const std::vector<std::pair<std::vector<std::string>, std::vector<double>>> &all) {
  page.section("noise", "Noise");
  std::vector<MedianInterval> intervals;
  Rows rows;
  for (const auto &[names, seconds] : all) {
    const MedianInterval one = medianInterval(seconds);
    if (seconds.empty())
      continue;
    intervals.push_back(one);
    std::vector<std::string> row = names;
    for (const std::string &cell :
         {std::to_string(seconds.size()), millisecondsText(1e3 * one.median), millisecondsText(1e3 * one.low),
          millisecondsText(1e3 * one.high), numberText(100 * one.relative(), 2) + " %",
          numberText(100 * one.confidence) + " %"})
      row.push_back(cell);
    rows.push_back(std::move(row));
  }
  const NoiseVerdict verdict = noiseVerdict(intervals);
  page.verdict(verdict.quiet, verdict.text);
  page.table({"problem", "implementation", "rounds", "median", "from", "to", "half width", "confidence"},
             rows, 2);
  page.paragraph(
      "Intervals for the median that assume nothing of how times are distributed: between two of the "
      "rounds, as narrow as 95 % allows.");
}

void addPanels(HtmlPage &page, const std::vector<ReportSource> &sources, Metric metric) {
  std::vector<Panel> panels;
  for (const ReportSource &source : sources)
    (void)addToPanels(source.result, source.name, "", panels, metric); // of the speeds it was checked
  if (panels.empty())
    page.paragraph("No roof of this machine is known; --peak and --roof say them.");
  else
    page.svg(drawPanels(panels, ""));
}

} // namespace

Result<std::string> benchReport(const std::vector<ReportSource> &sources, const std::string &title) try {
  std::vector<Panel> speeds;
  std::set<std::string> models;
  for (const ReportSource &source : sources) {
    if (Status added = addToPanels(source.result, source.name, "", speeds); !added)
      return added;
    if (const std::string model = deviceModel(source.result); !model.empty())
      models.insert(model);
  }
  std::string where;
  for (const std::string &model : models)
    where += (where.empty() ? "" : " and ") + model;
  HtmlPage page(title.empty() ? "Attention " + passOf(speeds) + (where.empty() ? "" : " on " + where) : title,
                "flashplus bench, " + textOf(sources.front().result, "date"));
  page.section("speed", "Speed");
  page.svg(drawPanels(speeds, ""));
  page.section("time", "Time");
  addPanels(page, sources, Metric::Time);
  page.section("roof-share", "Share of the roof that binds");
  addPanels(page, sources, Metric::RoofShare);

  std::vector<RooflinePoint> points;
  std::vector<std::pair<std::vector<std::string>, std::vector<double>>> noise;
  Rows rows;
  Json kernels = Json::array();
  std::set<std::string> taken;
  for (const ReportSource &source : sources) {
    const Roofs roofs = roofsOf(source.result);
    const std::string dtype = source.result.value("dtype", "bf16");
    std::set<std::string> here;
    for (const Measurement &m : measurementsOf(source, taken)) {
      here.insert(m.series);
      const MedianInterval interval = medianInterval(m.seconds);
      const double flops = m.cell->value("flops", 0.0), seconds = m.tflops > 0 ? flops / m.tflops / 1e12 : 0;
      rows.push_back({m.title, m.series, millisecondsText(1e3 * seconds), rateText(1e12 * m.tflops),
                      percentOf(roofs.share(*m.cell, dtype, seconds)),
                      interval.confidence > 0 ? "+-" + numberText(100 * interval.relative(), 2) + " %" : "-",
                      m.cell->at("tflops").is_object() ? "-" : textOf(*m.cell, "schedule")});
      noise.push_back({{m.title, m.series}, m.seconds});
      if (const double bytes = leastBytes(*m.cell, dtype); bytes > 0 && flops > 0)
        points.push_back({m.series, m.title + ", " + m.series + ": " + rateText(1e12 * m.tflops),
                          flops / bytes, 1e12 * m.tflops});
    }
    taken.merge(here);
    for (const Json &kernel : source.result.value("kernels", Json::array()))
      kernels.push_back(kernel);
  }
  page.section("results", "Results");
  page.table({"problem", "implementation", "time", "speed", "of the roof", "known to", "schedule"}, rows, 2);
  page.section("roofline", "Roofline");
  const Roofs roofs = roofsOf(sources.front().result);
  if (!points.empty())
    page.svg(drawRoofline(points, roofs));
  addRoofTable(page, roofs);
  addResources(page, kernels);
  addNoise(page, noise);
  addMachine(page, sources);
  return page.text();
} catch (const Json::exception &error) {
  return invalidArgument(std::string("a result file is not one: ") + error.what());
}

std::string tuneReport(const Json &record) {
  const std::string model = deviceModel(record);
  HtmlPage page("Schedules of attention on " + (model.empty() ? "this machine" : model),
                "flashplus tune, " + textOf(record, "date"));
  const Json &cells = record.at("cells");
  struct Reason {
    size_t count = 0;
    std::string example;
  };
  std::map<std::string, std::set<std::string>> tried, failed, coarse, fine, best; // by spec
  std::map<std::string, Reason> reasons;
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
      } else {
        (one.value("coarse", false) ? coarse : fine)[spec].insert(schedule);
      }
    }
  }
  const auto count = [](const auto &by_spec) {
    size_t n = 0;
    for (const auto &[spec, schedules] : by_spec)
      n += schedules.size();
    return n;
  };
  page.section("funnel", "Schedules explored");
  const size_t all = count(tried), wrong = count(failed), timed = all - wrong;
  const auto bar = [](const char *label, size_t n, bool strong = false) {
    return HtmlPage::Bar{label, static_cast<double>(n), std::to_string(n), strong};
  };
  page.bars({bar("feasible: registers, shared memory and shapes allow them", all),
             bar("compiled, and right against fp64", timed),
             bar("timed at every length, not only pruned", count(fine)), bar("chosen", count(best), true)});
  page.section("left-out", "Why others were left out");
  Rows why;
  std::vector<std::pair<std::string, Reason>> sorted(reasons.begin(), reasons.end());
  std::ranges::sort(sorted, [](const auto &a, const auto &b) { return a.second.count > b.second.count; });
  for (const auto &[text, reason] : sorted)
    why.push_back({std::to_string(reason.count), text, reason.example});
  if (timed > count(fine))
    why.push_back(
        {std::to_string(timed - count(fine)), "slower than the kept ones in the coarse rounds", ""});
  if (why.empty())
    page.paragraph("None was.");
  else
    page.table({"schedules", "reason", "for example"}, why);

  page.section("results", "The fastest of each problem");
  Rows rows;
  std::vector<std::pair<std::vector<std::string>, std::vector<double>>> noise;
  std::vector<RooflinePoint> points;
  const Roofs roofs = roofsOf(record);
  for (const Json &cell : cells) {
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
      const MedianInterval interval = medianInterval(seconds);
      rows.push_back({title, schedule + (schedule == cell.value("reference", "") ? "  (today's)" : ""),
                      millisecondsText(1e3 * median(seconds)), rateText(1e12 * tflops),
                      numberText(one.value("ratio", 0.0), 4),
                      "+-" + numberText(100 * interval.relative(), 2) + " %"});
      noise.push_back({{title, schedule}, seconds});
      Json sized = problem;
      if (!sized.contains("flops"))
        sized["flops"] = tflops * 1e12 * median(seconds);
      if (const double bytes = leastBytes(sized, "bf16"); bytes > 0 && tflops > 0)
        points.push_back({schedule.substr(0, schedule.find(' ')), title + ", " + schedule,
                          sized.value("flops", 0.0) / bytes, 1e12 * tflops});
    }
    page.paragraph(title);
    page.bars(fastest);
  }
  page.table({"problem", "schedule", "time", "speed", "time over today's", "known to"}, rows, 2);
  page.section("roofline", "Roofline");
  if (!points.empty())
    page.svg(drawRoofline(points, roofs));
  addRoofTable(page, roofs);
  addResources(page, record.value("kernels", Json::array()));
  addNoise(page, noise);
  addMachine(page, {{record, ""}});
  return page.text();
}

std::string emulateReport(const Json &whole) {
  HtmlPage page("Emulated attention kernels, " + textOf(whole, "target"),
                "flashplus emulate: " + textOf(whole, "problem"));
  const auto number = [](const Json &object, const char *name) {
    return numberText(object.value(name, 0.0), 7);
  };
  page.section("check", "Result");
  if (const auto check = whole.find("check"); check == whole.end())
    page.paragraph("The result was not compared; --check does.");
  else
    page.verdict(check->value("good", false),
                 std::string(check->value("good", false) ? "Right" : "WRONG") + " against fp64: error " +
                     numberText(check->value("error", 0.0)) + " of a row's largest value, allowed " +
                     numberText(check->value("bound", 0.0)) + ".");
  page.section("launches", "Launches");
  Rows rows;
  for (const Json &launch : whole.at("launches"))
    rows.push_back({textOf(launch, "entry"), launch["grid"][0].dump(), launch["block"][0].dump(),
                    bytesOf(launch, "shared_memory"), number(launch, "warp_instructions"),
                    numberText(launch.value("active_lanes", 0.0)), textOf(launch, "limiter")});
  page.table(
      {"kernel", "blocks", "threads", "shared memory", "warp instructions", "lanes each", "limited by"}, rows,
      1);
  page.section("roofline", "Roofline: cycles of each unit of an SM, if it were alone");
  for (const Json &launch : whole.at("launches")) {
    page.paragraph(textOf(launch, "entry"));
    std::vector<HtmlPage::Bar> bars;
    double most = 0;
    for (const auto &[unit, cycles] : launch["cycles"].items())
      most = std::max(most, cycles.get<double>());
    for (const auto &[unit, cycles] : launch["cycles"].items())
      bars.push_back({unit, cycles.get<double>(),
                      numberText(cycles.get<double>(), 7) + " cycles, " +
                          percentOf(cycles.get<double>() / most) + " of the roof that binds",
                      unit == launch.value("limiter", "")});
    page.bars(bars);
  }
  page.section("mix", "Instructions");
  for (const Json &launch : whole.at("launches")) {
    page.paragraph(textOf(launch, "entry"));
    std::vector<HtmlPage::Bar> bars;
    for (const auto &[name, n] : launch["mix"].items())
      bars.push_back({name, n.get<double>(), numberText(n.get<double>(), 7)});
    page.bars(bars);
  }
  page.section("memory", "Memory");
  rows.clear();
  for (const Json &launch : whole.at("launches")) {
    const Json &bytes = launch["bytes"];
    rows.push_back({textOf(launch, "entry"), bytesOf(bytes, "global_read"), bytesOf(bytes, "global_written"),
                    bytesOf(bytes, "l2_read"), bytesOf(bytes, "l2_written"), bytesOf(bytes, "shared_read"),
                    bytesOf(bytes, "shared_written"),
                    number(launch, "bank_conflict_passes") + " of " + number(launch, "shared_passes")});
  }
  page.table({"kernel", "global read", "global written", "L2 read", "L2 written", "shared read",
              "shared written", "passes lost to bank conflicts"},
             rows, 1);
  addResources(page, whole.value("kernels", Json::array()));
  page.section("noise", "Noise");
  page.verdict(
      true,
      "None: counts are exact and the same each time. Cycles are those of a Hopper SM's units, each for "
      "itself; they say what binds, not how long a run takes (docs/emulator.md).");
  addMachine(page, {{whole.value("machine", Json::object()), ""}});
  return page.text();
}

} // namespace flashplus::tool
