// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/run_report.h"

#include "tools/flashplus/counters.h"
#include "tools/flashplus/table.h"

#include <cmath>

namespace flashplus::tool {

namespace {

/// "memory", "disk", "compiled", or a mixture.
std::string sourceText(const MeasuredPass &pass) {
  std::vector<std::pair<int64_t, const char *>> parts = {
      {pass.compiled, "compiled"}, {pass.from_disk, "disk"}, {pass.from_memory, "memory"}};
  std::erase_if(parts, [](const auto &part) { return part.first == 0; });
  if (parts.size() == 1)
    return parts[0].second;
  std::string text;
  for (auto [count, name] : parts)
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  return text.empty() ? "unknown" : text;
}

void addPass(Table &table, const MeasuredPass &pass) {
  auto timeText = [](double ms, const char *none) {
    return ms < 0 ? std::string(none) : millisecondsText(ms);
  };
  for (const Json &step : pass.plan.value("steps", Json::array())) {
    table.add({"kernel", step.value("spec", "")});
    table.add({"  schedule", step.value("schedule", "")});
    table.add({"  key", step.value("key", "")});
  }
  table.add({"kernel from", sourceText(pass) + " (" + std::to_string(pass.compiled) + " compiled, " +
                                std::to_string(pass.from_disk) + " from disk)"});
  table.add({"cold compile", timeText(pass.compile_ms, "- (nothing was compiled)")});
  table.add({"warm load", timeText(pass.load_ms, "- (not in the disk cache)")});
  table.add({"run", timeText(pass.run_ms, "-") +
                        (pass.runs ? " (median of " + std::to_string(pass.runs) + ")" : "")});
  table.add({"speed", pass.gflops < 0 ? "-" : rateText(1e9 * pass.gflops)});
}

Json orNull(double value) { return value < 0 || !std::isfinite(value) ? Json(nullptr) : Json(value); }

Json passJson(const MeasuredPass &pass) {
  return {{"plan", pass.plan},
          {"from", sourceText(pass)},
          {"cold_compile_ms", orNull(pass.compile_ms)},
          {"warm_load_ms", orNull(pass.load_ms)},
          {"run_ms", orNull(pass.run_ms)},
          {"runs", pass.runs},
          {"gflops", orNull(pass.gflops)}};
}

} // namespace

void printRunText(const Problem &problem, const Measured &measured, const std::string &out) {
  Table table;
  const Json &plan = measured.forward.plan;
  Json steps = plan.value("steps", Json::array());
  table.add({"device",
             plan.value("device", "") + (steps.empty() ? "" : " (" + steps[0].value("target", "") + ")")});
  table.add({"input", problem.source + ": q " + io::shapeText(problem.q.shape) + ", k " +
                          io::shapeText(problem.k.shape) + ", v " + io::shapeText(problem.v.shape) + ", " +
                          std::string(io::elementName(problem.q.type))});
  addPass(table, measured.forward);
  if (const auto &check = measured.check) {
    table.add({"largest error", numberText(check->absolute_error) + " against fp64"});
    table.add({"  of a row",
               numberText(check->error) + " of its largest value, allowed " + numberText(check->bound)});
    table.add({"  of lse", numberText(check->lse_error) + ", allowed " + numberText(check->lse_bound)});
    if (measured.cache)
      table.add(
          {"cache", measured.cache->empty() ? "as it should be, bit by bit" : "FAILED: " + *measured.cache});
    table.add({"check", measured.goodForward() ? "good" : "FAILED"});
  }
  if (measured.backward) {
    table.print();
    std::printf("\nbackward (speed: of 2.5 times the forward's operations)\n");
    table = Table();
    addPass(table, *measured.backward);
  }
  if (const auto &check = measured.check_backward) {
    for (const auto &part : check->parts) {
      table.add({"error of " + part.name,
                 numberText(part.absolute_error) + " against fp64" + (part.good() ? "" : ", FAILED")});
      table.add({"  of a row", numberText(part.error) + " of its scale, allowed " + numberText(part.bound)});
      table.add(
          {"  mean square", "root " + numberText(part.rms) + ", allowed " + numberText(part.rms_bound)});
    }
    table.add({"check", check->good() ? "good" : "FAILED"});
  }
  if (!out.empty())
    table.add({"written", out});
  table.print();
}

Json checkJson(const reference::Comparison &check, const std::optional<std::string> &cache) {
  Json json = {{"good", check.good() && (!cache || cache->empty())},
               {"absolute_error", orNull(check.absolute_error)},
               {"error", orNull(check.error)},
               {"bound", orNull(check.bound)},
               {"lse_error", orNull(check.lse_error)},
               {"lse_bound", orNull(check.lse_bound)},
               {"rows", check.rows}};
  if (cache)
    json["cache"] = *cache;
  return json;
}

Json checkJson(const reference::BackwardComparison &check) {
  Json parts = Json::object();
  for (const auto &part : check.parts)
    parts[part.name] = {{"good", part.good()},
                        {"absolute_error", orNull(part.absolute_error)},
                        {"error", orNull(part.error)},
                        {"bound", orNull(part.bound)},
                        {"rms", orNull(part.rms)},
                        {"rms_bound", orNull(part.rms_bound)},
                        {"rows", part.rows}};
  return {{"good", check.good()}, {"parts", parts}};
}

void printRunJson(const Problem &problem, const Measured &measured, const std::string &out) {
  Json json = {{"device", measured.forward.plan.value("device", "")},
               {"input",
                {{"source", problem.source},
                 {"dtype", io::elementName(problem.q.type)},
                 {"q", problem.q.shape},
                 {"k", problem.k.shape},
                 {"v", problem.v.shape}}}};
  json.update(passJson(measured.forward));
  json["counters"] = countersJson(measured.counters);
  if (measured.check)
    json["check"] = checkJson(*measured.check, measured.cache);
  if (measured.backward) {
    json["backward"] = passJson(*measured.backward);
    if (measured.check_backward)
      json["backward"]["check"] = checkJson(*measured.check_backward);
  }
  if (!out.empty())
    json["written"] = out;
  printJson(json);
}

} // namespace flashplus::tool
