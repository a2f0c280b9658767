// SPDX-License-Identifier: BSD-3-Clause
// flashplus tune: times every feasible schedule of some problems and keeps what it measured as a tuning
// record, from which plans take their schedules. Also writes default tables from records (tune_table.cpp).
#include "runtime/plans/tuning_record.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/kernel_facts.h"
#include "tools/flashplus/outputs.h"
#include "tools/flashplus/report.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/tune_table.h"
#include "tools/flashplus/tuner.h"

#include <algorithm>

namespace flashplus::tool {

namespace {

/// What became of the record, for people; a failure to write it is one.
Result<int> keptOrNot(const TuneFlags &flags, const Tuner &tuner, const Status &kept) {
  if (!kept)
    return kept;
  if (!flags.output.empty() && !flags.common.json)
    std::printf("written to %s\n", flags.output.c_str());
  if (flags.output.empty())
    std::fprintf(stderr, "flashplus: nothing was kept; -o FILE writes the record, and plans use it from "
                         "the folder `tuning` of the cache\n");
  if (tuner.unmeasured())
    return endedEarly(std::to_string(tuner.unmeasured()) + " of " +
                      std::to_string(tuner.unmeasured() + tuner.groups().size()) +
                      " specs were not measured" +
                      (flags.output.empty() ? "" : "; the others are in " + flags.output));
  return kExitGood;
}

/// --dry-run: what there is to do.
int printPlan(const TuneFlags &flags, const Tuner &tuner, const Json &facts) {
  size_t kernels = 0;
  std::vector<Json> groups;
  for (const TuneGroup &group : tuner.groups()) {
    kernels += group.trials.size();
    groups.push_back(
        {{"spec", group.spec}, {"schedules", group.trials.size()}, {"lengths", group.cells.size()}});
    if (!flags.common.json)
      std::printf("%zu schedules, %zu lengths: %s\n", group.trials.size(), group.cells.size(),
                  group.spec.c_str());
  }
  if (flags.common.json) {
    Json plan = facts;
    plan["groups"] = groups;
    plan["kernels"] = kernels;
    printJson(plan);
  } else {
    std::printf("%zu kernels\n", kernels);
  }
  return kExitGood;
}

/// A record but for its cells.
Json headOf(const TuneFlags &flags, const Tuner &tuner, const Json &facts) {
  Json head = {{"format", kTuningFormat}, {"provenance", "flashplus tune"}};
  head.update(facts);
  head["coarse_rounds"] = flags.coarse_rounds;
  head["drift_percent"] = flags.drift;
  head["blocks_discarded"] = tuner.discarded();
  head["clocks"] = tuner.clocks();
  return head;
}

/// The three fastest of each cell, and how many were left out.
void printFastest(const Tuner &tuner, const std::vector<Json> &cells) {
  Table table({"problem", "schedule", "speed", "time over today's"});
  table.alignRightFrom(2);
  size_t at = 0;
  for (const TuneGroup &group : tuner.groups())
    for (size_t cell : group.cells) {
      const Json &row = cells[at++];
      int shown = 0;
      for (const Json &one : row["timed"])
        if (!one.contains("failed") && shown++ < 3)
          table.add({shown == 1 ? tuner.problem(cell).label() : "",
                     one.value("schedule", "") +
                         (one.value("schedule", "") == row.value("reference", "") ? "  (today's)" : ""),
                     rateText(1e12 * one.value("tflops", 0.0)), numberText(one.value("ratio", 0.0), 4)});
    }
  table.print();
  size_t failed = 0, tried = 0;
  for (const TuneGroup &group : tuner.groups())
    for (const Trial &candidate : group.trials) {
      ++tried;
      if (!candidate.failed.empty() && ++failed <= 5)
        std::fprintf(stderr, "flashplus: left out: %s\n", candidate.failed.c_str());
    }
  std::printf("%zu kernels tried, %zu left out; %d blocks measured again for drift\n", tried, failed,
              tuner.discarded());
}

Status writePage(const TuneFlags &flags, const Tuner &tuner, const TimedDevice &timed, Json whole) {
  Json kernels = Json::array();
  for (const TuneGroup &group : tuner.groups())
    for (const Trial &trial : group.trials)
      if (!trial.fine.empty())
        addKernelFacts(timed.context.get(), group.spec, trial.schedule,
                       timed.facts["device"].value("target", ""), kernels);
  whole["kernels"] = std::move(kernels);
  return writeText(flags.html, tuneReport(whole));
}

/// Measures what is planned, prints what was found and writes the record and the page.
Result<int> report(const TuneFlags &flags, Tuner &tuner, const TimedDevice &timed) {
  FLASHPLUS_RETURN_IF_ERROR(tuner.measure());
  if (tuner.groups().empty())
    return endedEarly(
        "no spec was measured whole, so there is no record; the kernels that were compiled are in the "
        "cache");
  std::vector<Json> cells;
  for (const TuneGroup &group : tuner.groups())
    for (size_t cell : group.cells)
      cells.push_back(cellJson(group, cell, tuner.chosen(cell)));
  const Json head = headOf(flags, tuner, timed.facts);
  Json whole = head;
  whole["cells"] = cells;
  // What was measured is printed whether or not it can be kept, and each file is tried whatever became of the
  // other.
  if (flags.common.json)
    printJson(whole);
  else
    printFastest(tuner, cells);
  const Status kept =
      flags.output.empty() ? Status::ok() : writeText(flags.output, jsonLines(head, "cells", cells));
  const Status page = flags.html.empty() ? Status::ok() : writePage(flags, tuner, timed, std::move(whole));
  return keptOrNot(flags, tuner, kept ? page : kept);
}

/// Flags that would be accepted and do nothing.
Status checkFlags(const TuneFlags &flags) {
  if (flags.table.empty() != flags.records.empty())
    return invalidArgument("--table and --record go together");
  if (const std::string other = flags.given.but({"--table", "--record", "--out", "--cache-dir"});
      !flags.table.empty() && !other.empty())
    return invalidArgument("--table: measures nothing, so that " + other +
                           " does not go with it; --record and --out do");
  for (const char *file : {"--out", "--html"})
    if (flags.dry_run && std::ranges::find(flags.given.names, file) != flags.given.names.end())
      return invalidArgument(std::string(file) +
                             ": not with --dry-run, which measures nothing and writes no file");
  // Of a folder of records only files with this name are read.
  return prepareOutputs(
      {{"--out", flags.output, flags.table.empty() ? ".json" : ""}, {"--html", flags.html, ".html .htm"}});
}

Result<int> tune(const TuneFlags &flags) {
  FLASHPLUS_RETURN_IF_ERROR(checkFlags(flags));
  if (!flags.table.empty())
    return writeTable(flags.table, flags.records, flags.output);
  auto timed = TimedDevice::open(flags);
  if (!timed)
    return timed.status();
  auto cases = makeCases(flags, caseDefaults(timed->isGpu()));
  if (!cases)
    return cases.status();
  const Json &d = timed->facts["device"];
  if (!flags.common.json)
    std::fprintf(stderr, "flashplus: tuning on %s: %s (%s)\n", d.value("name", "").c_str(),
                 d.value("model", "").c_str(), d.value("target", "").c_str());
  Tuner tuner(flags, timed->context.get(), timed->device, d);
  FLASHPLUS_RETURN_IF_ERROR(tuner.plan(std::move(*cases)));
  return flags.dry_run ? printPlan(flags, tuner, timed->facts) : report(flags, tuner, *timed);
}

} // namespace

void addTune(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("tune", "Time every feasible schedule and keep a tuning record");
  verb->footer(
      "A record that lies in the folder `tuning` of the cache, or in $FLASHPLUS_TUNING, decides the "
      "schedules of\n"
      "later plans on the same model of device (docs/tuning.md).\n\n"
      "Examples:\n"
      "  flashplus tune --shape 4,4096,4096,32,8,128 --causal -o ~/.cache/flashplus/tuning/mine.json\n"
      "  flashplus tune --shape 1,1,8192,32,8,128 --shape 64,1,8192,32,8,128 --causal --algorithm "
      "sm80.decode\n"
      "  flashplus tune --shape 4,4096,4096,32,8,128 --causal --backward -o "
      "~/.cache/flashplus/tuning/backward.json\n"
      "  flashplus tune --head-dim 64,96,128,192/128,192,256 --algorithm sm90.flash -o "
      "tuning/h200_sm90.json\n"
      "  flashplus tune --table sm90.flash --record tuning/h200_sm90.json -o "
      "templates/forward/sm90_flash/table.inc");
  auto flags = std::make_shared<TuneFlags>();
  TuneFlags &f = *flags;
  addCaseFlags(*verb, f);
  verb->add_option("-o,--out", f.output, "Where the record (or the table) goes; replaced atomically")
      ->type_name("FILE");
  verb->add_option(
          "--html", f.html,
          "Write a report for people: schedules explored and why others were left out, the fastest, noise")
      ->type_name("FILE.html");
  auto list = [](CLI::Option *option) { return option->delimiter(',')->allow_extra_args(false); };
  list(verb->add_option("--algorithm", f.algorithms, "Only schedules of these [all of the target]"))
      ->type_name("NAME,...");
  verb->add_option("--knob", f.knobs, "Only these values of a knob; repeatable")
      ->type_name("NAME=N,...")
      ->allow_extra_args(false);
  verb->add_option("--rounds", f.rounds, "Rounds of the last candidates [5]")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  verb->add_option("--coarse-rounds", f.coarse_rounds, "Rounds of all candidates, which choose those")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--coarse-lengths", f.coarse_lengths, "Lengths at which all candidates are timed")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--keep", f.keep, "Candidates that each of those lengths keeps")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--milliseconds", f.milliseconds, "Of each candidate in a round [GPU 8, CPU 15]")
      ->check(CLI::Range(0.01, 60000.0))
      ->type_name("MS");
  verb->add_option("--drift", f.drift, "Percent by which the reference may move around a block of candidates")
      ->check(CLI::Range(0.1, 1000.0))
      ->type_name("PERCENT")
      ->capture_default_str();
  verb->add_option("-j,--jobs", f.jobs, "Kernels compiled at a time [all cores]")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  verb->add_flag("--backward", f.backward,
                 "Tune the gradients' kernels, each beside the others as they are today");
  verb->add_flag("--dry-run", f.dry_run, "Print how many kernels there are, and stop");
  verb->add_option("--table", f.table, "Write the default table of this algorithm from --record instead")
      ->type_name("NAME");
  verb->add_option("--record", f.records, "Record that --table is made from; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false);
  addCommonFlags(*verb, f.common);
  verb->callback([flags, selected, verb] {
    flags->given = GivenFlags::of(*verb);
    *selected = [flags] { return tune(*flags); };
  });
}

} // namespace flashplus::tool
