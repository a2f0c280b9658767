// SPDX-License-Identifier: BSD-3-Clause
// The report of emulate.
#include "tools/flashplus/report.h"
#include "tools/flashplus/report_sections.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

namespace {

std::string number(const Json &object, const char *name) { return numberText(object.value(name, 0.0), 7); }

/// A number of a check: JSON has neither infinity nor NaN, so a null stands for them.
double numberOf(const Json &object, const char *name) {
  const auto at = object.find(name);
  return at != object.end() && at->is_number() ? at->get<double>() : INFINITY;
}

/// "error 0.01 of a row's largest value, allowed 0.02"
std::string errorText(const Json &check, const char *name, const char *error, const char *of,
                      const char *bound) {
  return std::string(name) + " " + numberText(numberOf(check, error)) + of + ", allowed " +
         numberText(numberOf(check, bound));
}

/// Verdicts as they are added, and whether all are good.
class Verdicts {
public:
  explicit Verdicts(HtmlPage &page) : page_(page) {}
  void add(bool good, const std::string &of, const std::string &text) {
    page_.verdict(good, (of.empty() ? "" : of + ": ") + (good ? "Right" : "WRONG") + text);
    good_ &= good;
  }
  /// What the command itself made of them: a page must not be greener than its exit status.
  void end(bool good, const std::string &of) {
    if (good_ && !good)
      add(false, of, ": the check failed.");
    good_ = true;
  }

private:
  HtmlPage &page_;
  bool good_ = true;
};

void addChecks(HtmlPage &page, const Json &whole) {
  page.section("check", "Result");
  const Json check = whole.value("check", Json()),
             gradients = whole.value("backward", Json::object()).value("check", Json());
  if (check.is_null() && gradients.is_null())
    page.paragraph("The result was not compared; --check does.");
  Verdicts verdicts(page);
  const auto within = [](const Json &part, const char *error, const char *bound) {
    return std::isfinite(numberOf(part, error)) && numberOf(part, error) <= numberOf(part, bound);
  };
  if (!check.is_null()) {
    verdicts.add(
        within(check, "error", "bound"), "",
        " against fp64: " + errorText(check, "error", "error", " of a row's largest value", "bound") + ".");
    verdicts.add(within(check, "lse_error", "lse_bound"), "log-sum-exp",
                 " against fp64: " + errorText(check, "error", "lse_error", "", "lse_bound") + ".");
    if (const std::string wrong = check.value("cache", ""); check.contains("cache"))
      verdicts.add(wrong.empty(), "cache", wrong.empty() ? ", bit by bit." : ": " + wrong);
    verdicts.end(check.value("good", false), "forward");
  }
  if (!gradients.is_null()) {
    const Json parts = gradients.value("parts", Json::object());
    for (const auto &[name, part] : parts.items())
      verdicts.add(part.value("good", false), name,
                   " against fp64: " + errorText(part, "error", "error", " of a row's scale", "bound") +
                       "; " + errorText(part, "root mean square", "rms", "", "rms_bound") + ".");
    verdicts.end(gradients.value("good", false), "backward");
  }
}

void addLaunches(HtmlPage &page, const Json &launches) {
  page.section("launches", "Launches");
  Rows rows;
  for (const Json &launch : launches)
    rows.push_back({textOf(launch, "entry"), launch["grid"][0].dump(), launch["block"][0].dump(),
                    bytesOf(launch, "shared_memory"), number(launch, "warp_instructions"),
                    numberText(launch.value("active_lanes", 0.0)), textOf(launch, "limiter")});
  page.table(
      {"kernel", "blocks", "threads", "shared memory", "warp instructions", "lanes each", "limited by"}, rows,
      1);
}

void addCycles(HtmlPage &page, const Json &launches) {
  page.section("roofline", "Roofline: cycles of each unit of an SM, if it were alone");
  for (const Json &launch : launches) {
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
}

void addMix(HtmlPage &page, const Json &launches) {
  page.section("mix", "Instructions");
  for (const Json &launch : launches) {
    page.paragraph(textOf(launch, "entry"));
    std::vector<HtmlPage::Bar> bars;
    for (const auto &[name, n] : launch["mix"].items())
      bars.push_back({name, n.get<double>(), numberText(n.get<double>(), 7)});
    page.bars(bars);
  }
}

void addMemory(HtmlPage &page, const Json &launches) {
  page.section("memory", "Memory");
  Rows rows;
  for (const Json &launch : launches) {
    const Json &bytes = launch["bytes"];
    rows.push_back({textOf(launch, "entry"), bytesOf(bytes, "global_read"), bytesOf(bytes, "global_written"),
                    bytesOf(bytes, "l2_read"), bytesOf(bytes, "l2_written"), bytesOf(bytes, "shared_read"),
                    bytesOf(bytes, "shared_written"),
                    number(launch, "bank_conflict_passes") + " of " + number(launch, "shared_passes")});
  }
  page.table({"kernel", "global read", "global written", "L2 read", "L2 written", "shared read",
              "shared written", "passes lost to bank conflicts"},
             rows, 1);
}

} // namespace

std::string emulateReport(const Json &whole) {
  HtmlPage page("Emulated attention kernels, " + textOf(whole, "target"),
                "flashplus emulate: " + textOf(whole, "problem"));
  const Json &launches = whole.at("launches");
  addChecks(page, whole);
  addLaunches(page, launches);
  addCycles(page, launches);
  addMix(page, launches);
  addMemory(page, launches);
  addResources(page, whole.value("kernels", Json::array()));
  page.section("noise", "Noise");
  page.verdict(
      true,
      "None: counts are exact and the same each time. Cycles are those of a Hopper SM's units, each for "
      "itself; they say what binds, not how long a run takes (docs/emulator.md).");
  addMachine(page, {{whole.value("machine", Json::object()), "", ""}});
  return page.text();
}

} // namespace flashplus::tool
