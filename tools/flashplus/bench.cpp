// SPDX-License-Identifier: BSD-3-Clause
// flashplus bench: a grid of problems, timed in interleaved rounds; result files, pictures, comparisons.
#include "tools/flashplus/bench_suite.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/kernel_facts.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/memory_roof.h"
#include "tools/flashplus/plot.h"
#include "tools/flashplus/progress.h"
#include "tools/flashplus/report.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/workbench.h"

#include <algorithm>
#include <chrono>
#include <set>

namespace flashplus::tool {

namespace {

constexpr const char *kFormat = "flashplus-bench 1";

struct BenchFlags : CaseFlags {
  std::vector<std::string> schedules, overlays;
  std::string suite, json_file, plot, html, baseline, plot_title;
  int rounds = 0;
  double milliseconds = 0, roof = 0, peak = 0; ///< roof: GB/s, peak: TFLOP/s; 0: not known.
};

/// What is timed: a series of one case.
struct Entry {
  std::string series;
  std::unique_ptr<Prepared> prepared;
  int calls = 1;
  std::vector<double> seconds; ///< One a round.
  int dense = -1;              ///< Entry whose speed this one's is a share of.
  std::optional<double> reach;

  double tflops() const { return prepared->problem().flops() / median(seconds) / 1e12; }
  /// Bytes of keys and values a second.
  double readRate() const { return prepared->problem().keyBytes() / median(seconds); }
};

/// Median over the rounds of the speed as a share of the dense entry's in the same round; of what is bound by
/// memory, steps a second.
double shareOf(const Entry &entry, const Entry &dense) {
  const BenchCase &a = entry.prepared->problem(), &b = dense.prepared->problem();
  const double work = a.readsMemory() ? 1 : a.flops() / b.flops();
  std::vector<double> shares;
  for (size_t i = 0; i < entry.seconds.size(); ++i)
    shares.push_back(work / entry.seconds[i] * dense.seconds[i]);
  return median(shares);
}

/// `roof`: as BenchFlags.
Json cellJson(const Entry &entry, const std::vector<Entry> &entries, double roof) {
  Json cell = {{"series", entry.series}};
  cell.update(entry.prepared->problem().json());
  const Json &plan = entry.prepared->plan();
  cell["schedule"] = entry.prepared->schedule();
  cell["schedule_source"] = plan.value("schedule_source", "");
  cell["num_splits"] = plan.value("num_splits", 1);
  cell["flops"] = entry.prepared->problem().flops();
  cell["calls"] = entry.calls;
  std::vector<double> seconds;
  for (double s : entry.seconds)
    seconds.push_back(rounded(s));
  cell["seconds"] = seconds;
  cell["tflops"] = rounded(entry.tflops());
  if (entry.prepared->problem().readsMemory()) {
    cell["key_bytes"] = entry.prepared->problem().keyBytes();
    cell["bytes_per_second"] = rounded(entry.readRate());
    if (roof > 0)
      cell["share_of_roof"] = rounded(entry.readRate() / roof);
  }
  if (entry.dense >= 0) {
    const Entry &dense = entries[static_cast<size_t>(entry.dense)];
    cell["dense"] = dense.prepared->problem().json();
    cell["share_of_dense"] = rounded(shareOf(entry, dense));
    if (entry.reach)
      cell["reach"] = *entry.reach;
  }
  return cell;
}

/// Fields of a cell that make it the same measurement in another run.
Json identity(const Json &cell) {
  Json out;
  for (const char *name :
       {"series",    "head_dim", "head_dim_v", "dtype",   "causal",     "seqlen",   "seqlen_k",
        "batch",     "heads",    "heads_k",    "window",  "softcap",    "alibi",    "dropout",
        "page_size", "append",   "keys",       "lengths", "max_seqlen", "backward", "any_order"})
    if (cell.contains(name))
      out[name] = cell[name];
  return out;
}

/// TFLOP/s of `cell` in another result file; 0 if it is not there.
double findBaseline(const Json &cell, const Json &baseline) {
  for (const Json &other : baseline.value("cells", Json::array()))
    if (other.is_object() && other.contains("tflops") && other["tflops"].is_number() &&
        identity(other) == identity(cell))
      return other["tflops"].get<double>();
  return 0;
}

/// `host` and `roofs`: of a suite that is held against memory, how fast it was read in each round.
Status timeRounds(const Workbench &bench, const MachineSensors &sensors, int rounds, double milliseconds,
                  const std::optional<HostRoof> &host, std::vector<Entry> &entries, std::vector<Json> &clocks,
                  std::vector<double> &roofs) {
  double round_seconds = 0;
  for (Entry &entry : entries) {
    if (interrupted())
      return Status::ok();
    const auto begin = std::chrono::steady_clock::now();
    auto calls = bench.calibrate(*entry.prepared, milliseconds);
    if (!calls)
      return calls.status();
    entry.calls = *calls;
    constexpr int kCalibrating = 6; // calls
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    round_seconds += std::max(milliseconds / 1e3, took / kCalibrating);
  }
  sayEstimate(std::to_string(rounds) + " rounds of " + std::to_string(entries.size()) + " timings",
              rounds * round_seconds);
  Progress progress("rounds", rounds);
  for (int round = 0; round < rounds && !interrupted(); ++round) {
    for (Entry &entry : entries) {
      auto seconds = bench.time(*entry.prepared, entry.calls);
      if (!seconds)
        return seconds.status();
      entry.seconds.push_back(*seconds);
    }
    if (host)
      roofs.push_back(host->measure());
    clocks.push_back(sensors.read());
    progress.step();
  }
  return Status::ok();
}

std::string percentText(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%+.1f %%", 100 * (ratio - 1));
  return text;
}

void printTable(const std::vector<Entry> &entries, const std::vector<Json> &cells, const Json &baseline,
                const std::string &suite) {
  const bool decode = suite == "decode";
  std::vector<std::string> headers = {"problem", "series", "time", decode ? "GB/s" : "speed", "spread"};
  if (decode)
    headers.push_back("of roof");
  if (!suite.empty())
    headers.insert(headers.end(), {"of dense", "asked"});
  if (!baseline.is_null())
    headers.push_back("change");
  Table table(headers);
  table.alignRightFrom(2);
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry &e = entries[i];
    const auto [least, most] = std::minmax_element(e.seconds.begin(), e.seconds.end());
    std::vector<std::string> row = {e.prepared->problem().label(), seriesName(e.series),
                                    decode ? numberText(1e6 * median(e.seconds), 4) + " us"
                                           : millisecondsText(1e3 * median(e.seconds)),
                                    decode ? numberText(e.readRate() / 1e9, 4) : rateText(1e12 * e.tflops()),
                                    numberText(100 * (*most / *least - 1), 2) + " %"};
    if (decode)
      row.push_back(
          cells[i].contains("share_of_roof") ? numberText(cells[i]["share_of_roof"].get<double>(), 3) : "-");
    if (!suite.empty()) {
      row.push_back(e.dense >= 0 ? numberText(cells[i]["share_of_dense"].get<double>(), 3) : "");
      row.push_back(e.reach ? numberText(*e.reach, 3) : "");
    }
    if (!baseline.is_null()) {
      const double before = findBaseline(cells[i], baseline);
      row.push_back(before > 0 ? percentText(e.tflops() / before) : "-");
    }
    table.add(std::move(row));
  }
  table.print();
}

/// Without a GPU, why: figures of a CPU must not be taken for a GPU's.
void sayWhere(flashplus_context *context, const BenchFlags &flags, DLDevice device, const Json &facts) {
  const Json &d = facts["device"];
  std::string line = d.value("name", "") + ": " + d.value("model", "") + " (" + d.value("target", "") + ")";
  if (flags.device == "auto" && device.device_type == kDLCPU)
    if (auto gpu = describeDevice(context, {kDLCUDA, 0}); !gpu)
      line += "; no GPU: " + gpu.status().message();
  std::fprintf(stderr, "flashplus: %s\n", line.c_str());
}

std::string stem(const std::string &path) {
  const size_t slash = path.find_last_of('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return name.ends_with(".json") ? name.substr(0, name.size() - 5) : name;
}

/// The model of the device that a result file is of; "" if it doesn't say.
std::string modelOf(const Json &result) {
  if (result.contains("device"))
    return result["device"].value("model", "");
  return result.contains("gpu") ? result["gpu"].value("name", "") : "";
}

/// The plot and the report, of what was measured (or null) and the files of --overlay.
Status writePictures(const BenchFlags &flags, const Json *measured) {
  std::vector<ReportSource> sources;
  std::vector<std::string> named; // of each, how a complaint begins
  if (measured) {
    sources.push_back({*measured, "now"});
    named.emplace_back();
  }
  for (const std::string &path : flags.overlays) {
    auto json = readJson("--overlay", path);
    if (!json)
      return json.status();
    sources.push_back({std::move(*json), stem(path)});
    named.push_back("--overlay " + path + ": ");
  }
  std::set<std::string> models;
  for (const ReportSource &source : sources)
    if (const std::string model = modelOf(source.result); !model.empty())
      models.insert(model);
  std::vector<Panel> panels;
  for (size_t i = 0; i < sources.size(); ++i) {
    // Of several machines, each line says which one it is of.
    const std::string model = models.size() > 1 ? modelOf(sources[i].result) : "";
    if (Status added = addToPanels(sources[i].result, sources[i].name, model, panels); !added)
      return named[i].empty() ? added : invalidArgument(named[i] + added.message());
  }
  const std::string pass = passOf(panels);
  std::string title = flags.plot_title;
  if (title.empty())
    title = "Attention " + pass + (models.size() == 1 ? " on " + *models.begin() : "");
  if (!flags.plot.empty())
    FLASHPLUS_RETURN_IF_ERROR(writeText(flags.plot, drawPanels(panels, title)));
  if (flags.html.empty())
    return Status::ok();
  auto html = benchReport(sources, flags.plot_title);
  return html ? writeText(flags.html, *html) : html.status();
}

Result<int> bench(const BenchFlags &flags, bool measure) {
  const Interruptible asks;
  if (!flags.overlays.empty() && flags.plot.empty() && flags.html.empty())
    return invalidArgument("--overlay: only with --plot or --html");
  if (!flags.plot.empty() && !flags.plot.ends_with(".svg"))
    return invalidArgument("--plot: " + flags.plot + " must end in .svg, the format that is written");
  FLASHPLUS_RETURN_IF_ERROR(prepareOutput("--plot", flags.plot));
  FLASHPLUS_RETURN_IF_ERROR(prepareOutput("--html", flags.html));
  FLASHPLUS_RETURN_IF_ERROR(prepareOutput("--json", flags.json_file));
  if (!measure) {
    FLASHPLUS_RETURN_IF_ERROR(writePictures(flags, nullptr));
    return kExitGood;
  }
  Json baseline;
  if (!flags.baseline.empty()) {
    auto json = readJson("--baseline", flags.baseline);
    if (!json)
      return json.status();
    baseline = std::move(*json);
    if (baseline.value("format", "") != kFormat)
      return invalidArgument("--baseline: " + flags.baseline +
                             " is not a file of flashplus bench --json (format '" +
                             baseline.value("format", "") + "', must be '" + kFormat + "')");
  }
  auto timed = TimedDevice::open(flags);
  if (!timed)
    return timed.status();
  const bool gpu = timed->isGpu();
  const CaseDefaults defaults = caseDefaults(gpu);
  if (!flags.common.json)
    sayWhere(timed->context.get(), flags, timed->device, timed->facts);

  // Which (series, case, schedule), and for a suite the dense one beside each.
  struct Wanted {
    std::string series;
    BenchCase problem;
    std::string schedule;
    int dense = -1;
    std::optional<double> reach;
  };
  std::vector<Wanted> wanted;
  std::vector<BenchCase> cases;
  const std::vector<std::string> schedules =
      flags.schedules.empty() ? std::vector<std::string>{""} : flags.schedules;
  const bool decode = flags.suite == "decode";
  if (!flags.suite.empty()) {
    if (!flags.shapes.empty() || !flags.head_dims.empty() || !flags.seqlens.empty())
      return invalidArgument("--suite " + flags.suite + ": chooses its own shapes; " +
                             (decode ? "--tokens scales them" : "--tokens and --hidden scale them"));
    if (decode && flags.backward)
      return invalidArgument("--backward: not with --suite decode, whose steps have none");
    for (SuiteRow &row : decode ? decodeSuite(flags.tokens ? flags.tokens : 8192, gpu)
                                : featureSuite(flags.tokens ? flags.tokens : defaults.tokens,
                                               flags.hidden ? flags.hidden : defaults.hidden)) {
      if (flags.backward) { // what is asked for is asked of the forward
        row.problem.backward = row.dense->backward = true;
        row.reach.reset();
      }
      for (const std::string &schedule : schedules) {
        const std::string suffix = schedule.empty() ? "" : " " + schedule;
        if (row.dense) {
          wanted.push_back({"dense for " + row.name + suffix, *row.dense, schedule});
          cases.push_back(*row.dense);
        }
        wanted.push_back({row.name + suffix, row.problem, schedule,
                          row.dense ? static_cast<int>(wanted.size()) - 1 : -1, row.reach});
        cases.push_back(row.problem);
      }
    }
  } else {
    auto made = makeCases(flags, defaults);
    if (!made)
      return made.status();
    cases = std::move(*made);
    for (const BenchCase &c : cases)
      for (const std::string &schedule : schedules)
        wanted.push_back({schedule.empty() ? "ours" : "ours " + schedule, c, schedule});
  }
  auto made = Workbench::make(timed->context.get(), timed->device, cases);
  if (!made)
    return made.status();
  std::vector<Entry> entries;
  {
    Progress progress("preparing", static_cast<int64_t>(wanted.size()));
    for (Wanted &w : wanted) {
      if (interrupted())
        break;
      auto prepared = (*made)->prepare(w.problem, w.schedule);
      if (!prepared)
        return Status(prepared.status().code(), w.problem.label() + ": " + prepared.status().message());
      entries.push_back({w.series, std::move(*prepared), 1, {}, w.dense, w.reach});
      progress.step();
    }
  }
  if (interrupted())
    return endedEarly("nothing was measured; the kernels that were compiled are in the cache");
  const int rounds = flags.rounds ? flags.rounds : gpu ? 7 : 5;
  const double milliseconds = flags.milliseconds > 0 ? flags.milliseconds : gpu ? 15 : 30;
  MachineSensors sensors(timed->device, timed->facts["device"].value("model", ""));
  std::vector<Json> clocks;
  std::optional<HostRoof> host;
  if ((decode || !flags.html.empty()) && timed->device.device_type == kDLCPU && flags.roof == 0) {
    auto memory = HostRoof::make(flags.common.threads);
    if (!memory)
      return memory.status();
    host = std::move(*memory);
  }
  std::vector<double> roofs;
  FLASHPLUS_RETURN_IF_ERROR(timeRounds(**made, sensors, rounds, milliseconds, host, entries, clocks, roofs));
  const auto done = entries.empty() ? rounds : static_cast<int>(entries.back().seconds.size());
  if (done == 0)
    return endedEarly("nothing was measured; the kernels that were compiled are in the cache");
  const double roof = host ? median(roofs) : 1e9 * flags.roof;

  std::vector<Json> cells;
  for (const Entry &entry : entries)
    cells.push_back(cellJson(entry, entries, roof));
  Json head = {{"format", kFormat}};
  head.update(timed->facts);
  head["rounds"] = done;
  head["milliseconds"] = milliseconds;
  if (!flags.suite.empty())
    head["suite"] = flags.suite;
  if (roof > 0) {
    head["roof_bytes_per_second"] = rounded(roof);
    head["roof_bytes_source"] = host ? "a plain read of host memory in the same rounds" : "--roof";
  }
  if (flags.peak > 0) {
    head["roof_flops_per_second"] = 1e12 * flags.peak;
    head["roof_flops_source"] = "--peak";
  }
  head["clocks"] = clocks;
  Json whole = head;
  whole["cells"] = cells;
  if (!flags.json_file.empty())
    FLASHPLUS_RETURN_IF_ERROR(writeText(flags.json_file, jsonLines(head, "cells", cells)));
  if (!flags.html.empty()) {
    Json kernels = Json::array();
    for (const Entry &entry : entries)
      addKernelFacts(timed->context.get(), entry.prepared->plan(), kernels);
    whole["kernels"] = std::move(kernels);
  }
  if (!flags.plot.empty() || !flags.html.empty())
    FLASHPLUS_RETURN_IF_ERROR(writePictures(flags, &whole));
  if (flags.common.json) {
    if (!baseline.is_null())
      for (Json &cell : whole["cells"])
        if (double before = findBaseline(cell, baseline); before > 0)
          cell["change_percent"] = rounded(100 * (cell["tflops"].get<double>() / before - 1));
    printJson(whole);
  } else {
    printTable(entries, cells, baseline, flags.suite);
    if (roof > 0)
      std::printf("roof: %s GB/s%s\n", numberText(roof / 1e9, 4).c_str(),
                  host ? ", a plain read of host memory in the same rounds" : ", of --roof");
  }
  if (done < rounds)
    return endedEarly("what is shown" + (flags.json_file.empty() ? "" : " and in " + flags.json_file) +
                      " is of " + std::to_string(done) + " of " + std::to_string(rounds) + " rounds");
  return kExitGood;
}

} // namespace

void addBench(CLI::App &app, Action *selected) {
  CLI::App *verb =
      app.add_subcommand("bench", "Time a grid of problems in interleaved rounds; compare and plot");
  verb->footer(
      "Input is random. TFLOP/s count the pairs that the mask lets through, exactly. Every round times "
      "every\n"
      "problem once, so that clocks and power are the same for all; the median of the rounds is shown.\n"
      "--backward times the gradients of q, k and v alone, the forward before them not; their operations\n"
      "are 2.5 times the forward's by convention, whatever a kernel works out again.\n"
      "--suite features shows features as a share of our own dense speed, --suite decode the microseconds "
      "of\n"
      "decode steps and the share of the memory's speed at which they read keys (docs/tuning.md). Calls of\n"
      "few rows over many keys take turns among places in memory, so that no cache has their keys.\n\n"
      "Examples:\n"
      "  flashplus bench --head-dim 64,128 --seqlen 512,2048,8192 --causal both --json now.json --plot "
      "now.svg\n"
      "  flashplus bench --shape 4,4096,4096,32,8,128 --causal --schedule tile_m=192 --schedule "
      "tile_m=128\n"
      "  flashplus bench --suite features\n"
      "  flashplus bench --suite decode --json decode.json\n"
      "  flashplus bench --head-dim 64,128 --causal both --backward\n"
      "  flashplus bench --baseline before.json\n"
      "  flashplus bench --plot both.svg --overlay now.json --overlay peers.json   # measures nothing\n"
      "  flashplus bench --head-dim 64 --seqlen 512,1k,2k --html report.html");
  auto flags = std::make_shared<BenchFlags>();
  BenchFlags &f = *flags;
  addCaseFlags(*verb, f);
  verb->add_flag("--backward", f.backward, "Time the backward instead of the forward");
  verb->add_option("--schedule", f.schedules, "Force a schedule, or some knobs of the chosen one; repeatable")
      ->type_name("NAME=N,...|TEXT")
      ->allow_extra_args(false);
  verb->add_option(
          "--suite", f.suite,
          "features: each beside the dense problem that it is held against; decode: steps of one row")
      ->check(CLI::IsMember({"features", "decode"}))
      ->type_name("NAME");
  verb->add_option(
          "--roof", f.roof,
          "With --suite decode or --html, what memory gives [CPU: a plain read, timed beside; GPU: as "
          "its data sheet says, where it is known]")
      ->check(CLI::Range(0.001, 1e6))
      ->type_name("GB/S");
  verb->add_option("--peak", f.peak, "With --html, what arithmetic gives [a known GPU's data sheet]")
      ->check(CLI::Range(1e-6, 1e6))
      ->type_name("TFLOP/S");
  verb->add_option("--rounds", f.rounds, "Rounds [GPU 7, CPU 5]")
      ->check(CLI::Range(1, 10000))
      ->type_name("N");
  verb->add_option("--milliseconds", f.milliseconds, "Of each problem in a round [GPU 15, CPU 30]")
      ->check(CLI::Range(0.01, 60000.0))
      ->type_name("MS");
  verb->add_option_function<std::vector<std::string>>(
          "--json",
          [&f](const std::vector<std::string> &files) {
            f.common.json = files.empty() || files.front().empty();
            f.json_file = f.common.json ? "" : files.front();
          },
          "Write every cell with every round's time to FILE; without one, print it instead of the table")
      ->expected(0, 1)
      ->type_name("[FILE]");
  verb->add_option("--baseline", f.baseline, "Show the change against a file of --json")->type_name("FILE");
  verb->add_option("--plot", f.plot, "Write TFLOP/s against sequence length")->type_name("FILE.svg");
  verb->add_option("--html", f.html,
                   "Write a report for people: plots, roofline, resources of the kernels, noise, the machine")
      ->type_name("FILE.html");
  CLI::Option *overlay = verb->add_option("--overlay", f.overlays,
                                          "Draw a result file too (repeatable; also of "
                                          "bench/forward_gpu.py); with none of the flags that "
                                          "choose problems, nothing is measured")
                             ->type_name("FILE")
                             ->allow_extra_args(false);
  verb->add_option("--plot-title", f.plot_title, "Title of the plot and the report [pass and device]")
      ->type_name("TEXT");
  addCacheFlag(*verb, f.common);
  verb->callback([flags, selected, overlay, verb] {
    bool measure = overlay->count() == 0;
    for (const char *name : {"--shape", "--head-dim", "--seqlen", "--causal", "--suite", "--schedule",
                             "--json", "--baseline", "--device", "--backward"})
      measure |= verb->get_option(name)->count() > 0;
    *selected = [flags, measure] { return bench(*flags, measure); };
  });
}

} // namespace flashplus::tool
