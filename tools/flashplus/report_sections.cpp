// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/report_sections.h"

#include "tools/flashplus/machine.h"
#include "tools/flashplus/noise.h"
#include "tools/flashplus/table.h"

namespace flashplus::tool {

std::string bytesOf(const Json &object, const char *name) {
  const auto at = object.find(name);
  return at == object.end() || !at->is_number() ? "-" : bytesText(at->get<double>());
}

std::string percentOf(double ratio) { return ratio > 0 ? numberText(100 * ratio) + " %" : "-"; }

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

void addNoise(HtmlPage &page, const std::vector<NoiseRow> &all) {
  page.section("noise", "Noise");
  std::vector<MedianInterval> intervals;
  Rows rows;
  for (const NoiseRow &row : all) {
    if (row.seconds.empty())
      continue;
    const MedianInterval one = intervals.emplace_back(medianInterval(row.seconds));
    rows.push_back({row.title, row.series, std::to_string(row.seconds.size()),
                    millisecondsText(1e3 * one.median), millisecondsText(1e3 * one.low),
                    millisecondsText(1e3 * one.high), numberText(100 * one.relative(), 2) + " %",
                    numberText(100 * one.confidence) + " %"});
  }
  const NoiseVerdict verdict = noiseVerdict(intervals);
  page.verdict(verdict.quiet, verdict.text);
  page.table({"problem", "implementation", "rounds", "median", "from", "to", "half width", "confidence"},
             rows, 2);
  page.paragraph(
      "Intervals for the median that assume nothing of how times are distributed: between two of the "
      "rounds, as narrow as 95 % allows.");
}

} // namespace flashplus::tool
