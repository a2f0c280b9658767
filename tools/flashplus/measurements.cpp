// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/measurements.h"

#include "tools/flashplus/machine.h"

#include <algorithm>
#include <map>
#include <set>

namespace flashplus::tool {

namespace {

/// Ends the title of a panel of gradients.
constexpr std::string_view kBackwardTitle = ", backward";

/// Series of each panel.
using Taken = std::map<std::string, std::set<std::string>>;

/// Adds those of one file. `suffix`: of every series. Throws Json::exception where a field is of a wrong
/// type.
void addSource(const ReportSource &source, size_t index, const std::string &suffix, const Taken &taken,
               const Roofs &roofs, std::vector<Measurement> &all) {
  const Json &result = source.result;
  const std::string dtype = result.value("dtype", "bf16");
  const Json cells = result.contains("cells") && result["cells"].is_array() ? result["cells"] : Json::array();
  for (const Json &cell : cells) {
    const auto rounds = cell.find("seconds");
    const auto add = [&](const std::string &plain, double tflops, const Json *seconds, bool named) {
      if (!(tflops > 0))
        return;
      Measurement m;
      m.source = index;
      m.panel = cellTitle(cell, dtype);
      m.title = m.panel + ", S " + textOf(cell, "seqlen") + ", B " + textOf(cell, "batch");
      m.series = seriesName(plain) + suffix;
      if (const auto there = taken.find(m.panel); there != taken.end() && there->second.contains(m.series))
        m.series += " (" + source.name + ")";
      m.schedule = named ? textOf(cell, "schedule") : "-";
      m.length = cell.value("seqlen", int64_t{0});
      m.drawn = plain != "gemm" && m.length >= 1;
      m.tflops = tflops;
      m.flops = cell.value("flops", 0.0);
      m.bytes = leastBytes(cell, dtype);
      m.share = roofs.share(cell, dtype, m.seconds());
      if (seconds && seconds->is_array())
        for (const Json &s : *seconds)
          if (s.is_number())
            m.all.push_back(s.get<double>());
      all.push_back(std::move(m));
    };
    if (const Json &tflops = cell.at("tflops"); tflops.is_object()) {
      const bool each = rounds != cell.end() && rounds->is_object();
      for (const auto &[series, value] : tflops.items())
        if (value.is_number())
          add(series, value.get<double>(), each && rounds->contains(series) ? &(*rounds)[series] : nullptr,
              /*named=*/false);
    } else {
      add(cell.value("series", "ours"), tflops.get<double>(), rounds != cell.end() ? &*rounds : nullptr,
          /*named=*/true);
    }
  }
}

} // namespace

std::string textOf(const Json &object, const char *name) {
  const auto at = object.find(name);
  return at == object.end() || at->is_null() ? "-" : at->is_string() ? at->get<std::string>() : at->dump();
}

std::string seriesName(const std::string &series) {
  return series == "ours" || series.starts_with("ours ") ? std::string(kProduct) + series.substr(4) : series;
}

std::string cellTitle(const Json &cell, const std::string &dtype) {
  const int64_t d = cell.value("head_dim", int64_t{0}), dv = cell.value("head_dim_v", d);
  std::string title = "D " + std::to_string(d) + (dv != d ? "/" + std::to_string(dv) : "");
  title += cell.value("causal", false) ? ", causal" : ", full";
  title += ", " + cell.value("dtype", dtype);
  if (cell.contains("window"))
    title += ", window " + cell["window"].dump();
  if (cell.contains("softcap"))
    title += ", softcap";
  if (cell.contains("alibi"))
    title += ", ALiBi";
  if (cell.contains("sinks"))
    title += ", sinks";
  if (cell.contains("dropout"))
    title += ", dropout " + cell["dropout"].dump();
  const int64_t heads = cell.value("heads", int64_t{0}), heads_k = cell.value("heads_k", heads);
  if (heads != heads_k)
    title += ", heads " + std::to_string(heads) + "/" + std::to_string(heads_k);
  if (cell.value("backward", false))
    title += kBackwardTitle;
  return title;
}

Result<Measurements> measurementsOf(const std::vector<ReportSource> &sources) {
  Measurements out;
  for (const ReportSource &source : sources) {
    const std::string model = deviceModel(source.result);
    const auto at = std::ranges::find(out.models, model);
    out.model_of.push_back(static_cast<size_t>(at - out.models.begin()));
    if (at == out.models.end())
      out.models.push_back(model);
  }
  const bool several = std::ranges::count_if(out.models, [](const std::string &m) { return !m.empty(); }) > 1;
  Taken taken;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string where = sources[i].where.empty() ? sources[i].name : sources[i].where;
    const std::string &model = out.models[out.model_of[i]];
    const size_t first = out.all.size();
    try {
      out.roofs.push_back(roofsOf(sources[i].result));
      addSource(sources[i], i, several && !model.empty() ? " (" + model + ")" : "", taken, out.roofs.back(),
                out.all);
    } catch (const Json::exception &error) {
      return invalidArgument(where + ": is not a result file: " + error.what());
    }
    if (std::none_of(out.all.begin() + static_cast<std::ptrdiff_t>(first), out.all.end(),
                     [](const Measurement &m) { return m.drawn; }))
      return invalidArgument(where + ": holds no cells with a length and TFLOP/s");
    for (size_t m = first; m < out.all.size(); ++m)
      taken[out.all[m].panel].insert(out.all[m].series);
  }
  return out;
}

std::string passOf(const std::vector<Measurement> &all) {
  bool forward = false, backward = false;
  for (const Measurement &m : all)
    (m.panel.ends_with(kBackwardTitle) ? backward : forward) |= m.drawn;
  return forward && backward ? "forward and backward" : backward ? "backward" : "forward";
}

} // namespace flashplus::tool
