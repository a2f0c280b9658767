// SPDX-License-Identifier: BSD-3-Clause
// flashplus bench: a grid of problems, timed in interleaved rounds; result files, pictures, comparisons.
#include "tools/flashplus/bench_suite.h"
#include "tools/flashplus/choice.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/kernel_facts.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/memory_roof.h"
#include "tools/flashplus/outputs.h"
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
  GivenFlags given;

  bool decode() const { return suite == "decode"; }
  bool draws() const { return !plot.empty() || !html.empty(); }
};

/// What is to be timed.
struct Wanted {
  std::string series;
  BenchCase problem;
  std::string schedule;
  int dense = -1; ///< As Entry.
  std::optional<double> reach;
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
       {"series", "head_dim", "head_dim_v", "dtype",    "causal",    "seqlen",  "seqlen_k",  "batch",
        "heads",  "heads_k",  "window",     "softcap",  "alibi",     "dropout", "page_size", "append",
        "keys",   "lengths",  "max_seqlen", "backward", "any_order", "sinks"})
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
    const auto calls = bench.calibrate(*entry.prepared, milliseconds);
    if (!calls)
      return calls.status();
    entry.calls = calls->count;
    round_seconds += calls->seconds;
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

/// --peak and --roof in a result file.
void setRoofs(const BenchFlags &flags, Json &result) {
  if (flags.roof > 0) {
    result["roof_bytes_per_second"] = rounded(1e9 * flags.roof);
    result["roof_bytes_source"] = "--roof";
  }
  if (flags.peak > 0) {
    result["roof_flops_per_second"] = 1e12 * flags.peak;
    result["roof_flops_source"] = "--peak";
  }
}

/// What was measured (or null), and the files of --overlay. The roofs that were typed are those of the device
/// that was measured, and where nothing was, of the one that the files are of.
Result<std::vector<ReportSource>> sourcesOf(const BenchFlags &flags, const Json *measured) {
  std::vector<ReportSource> sources;
  if (measured)
    sources.push_back({*measured, "now", ""});
  for (const std::string &path : flags.overlays) {
    auto json = readJson("--overlay", path);
    if (!json)
      return json.status();
    sources.push_back({std::move(*json), stem(path), "--overlay " + path});
  }
  const std::string model = deviceModel(sources.front().result);
  for (ReportSource &source : sources)
    if (deviceModel(source.result) == model)
      setRoofs(flags, source.result);
    else if (!measured && (flags.peak > 0 || flags.roof > 0))
      return invalidArgument(std::string(flags.peak > 0 ? "--peak" : "--roof") +
                             ": the overlays are of several devices (" + model + ", " +
                             deviceModel(source.result) + "), which have no roof in common");
  return sources;
}

/// The plot and the report.
Status writePictures(const BenchFlags &flags, const Json *measured) {
  auto sources = sourcesOf(flags, measured);
  if (!sources)
    return sources.status();
  if (!flags.plot.empty()) {
    auto measurements = measurementsOf(*sources);
    if (!measurements)
      return measurements.status();
    const std::vector<Panel> panels = panelsOf(*measurements);
    std::string title = flags.plot_title;
    if (title.empty())
      title = "Attention " + passOf(measurements->all) +
              (measurements->models.size() == 1 && !measurements->models.front().empty()
                   ? " on " + measurements->models.front()
                   : "");
    FLASHPLUS_RETURN_IF_ERROR(
        writeText(flags.plot, drawPanels(panels, title, seriesColours(seriesOf(panels)))));
  }
  if (flags.html.empty())
    return Status::ok();
  auto html = benchReport(*sources, flags.plot_title);
  return html ? writeText(flags.html, *html) : html.status();
}

/// The file of --baseline; null without one.
Result<Json> baselineOf(const BenchFlags &flags) {
  if (flags.baseline.empty())
    return Json();
  auto json = readJson("--baseline", flags.baseline);
  if (!json)
    return json.status();
  if (const std::string format = textOf(*json, "format"); format != kFormat)
    return invalidArgument("--baseline: " + flags.baseline +
                           " is not a file of flashplus bench --json (format '" + format + "', must be '" +
                           kFormat + "')");
  return json;
}

/// Which (series, case, schedule), and for a suite the dense one beside each.
Result<std::vector<Wanted>> wantedOf(const BenchFlags &flags, bool gpu) {
  const CaseDefaults defaults = caseDefaults(gpu);
  const std::vector<std::string> schedules =
      flags.schedules.empty() ? std::vector<std::string>{""} : flags.schedules;
  std::vector<Wanted> wanted;
  if (flags.suite.empty()) {
    auto cases = makeCases(flags, defaults);
    if (!cases)
      return cases.status();
    for (const BenchCase &c : *cases)
      for (const std::string &schedule : schedules)
        wanted.push_back({schedule.empty() ? "ours" : "ours " + schedule, c, schedule, -1, {}});
    return wanted;
  }
  for (SuiteRow &row : flags.decode() ? decodeSuite(flags.tokens ? flags.tokens : 8192, gpu)
                                      : featureSuite(flags.tokens ? flags.tokens : defaults.tokens,
                                                     flags.hidden ? flags.hidden : defaults.hidden)) {
    if (flags.backward) { // what is asked for is asked of the forward
      row.problem.backward = row.dense->backward = true;
      row.reach.reset();
    }
    for (const std::string &schedule : schedules) {
      const std::string suffix = schedule.empty() ? "" : " " + schedule;
      if (row.dense)
        wanted.push_back({"dense for " + row.name + suffix, *row.dense, schedule, -1, {}});
      wanted.push_back({row.name + suffix, row.problem, schedule,
                        row.dense ? static_cast<int>(wanted.size()) - 1 : -1, row.reach});
    }
  }
  return wanted;
}

/// Fewer where it was interrupted.
Result<std::vector<Entry>> prepareAll(Workbench &bench, const std::vector<Wanted> &wanted) {
  std::vector<Entry> entries;
  Progress progress("preparing", static_cast<int64_t>(wanted.size()));
  for (const Wanted &w : wanted) {
    if (interrupted())
      break;
    auto prepared = bench.prepare(w.problem, w.schedule);
    if (!prepared)
      return Status(prepared.status().code(), w.problem.label() + ": " + prepared.status().message());
    entries.push_back({w.series, std::move(*prepared), 1, {}, w.dense, w.reach});
    progress.step();
  }
  return entries;
}

/// What was timed, and beside it.
struct Timed {
  std::vector<Entry> entries;
  int rounds = 0, wanted_rounds = 0; ///< Done, and asked for.
  double milliseconds = 0;
  double roof = 0; ///< Of memory, bytes a second; 0: not known.
  bool host_roof = false;
  std::vector<Json> clocks;
};

Result<Timed> timeAll(const BenchFlags &flags, const TimedDevice &timed, const Workbench &bench,
                      std::vector<Entry> entries) {
  Timed out;
  out.wanted_rounds = flags.rounds ? flags.rounds : timed.isGpu() ? 7 : 5;
  out.milliseconds = flags.milliseconds > 0 ? flags.milliseconds : timed.isGpu() ? 15 : 30;
  MachineSensors sensors(timed.device, timed.facts["device"].value("model", ""));
  std::optional<HostRoof> host;
  if ((flags.decode() || !flags.html.empty()) && timed.device.device_type == kDLCPU && flags.roof == 0) {
    auto memory = HostRoof::make(flags.common.threads);
    if (!memory)
      return memory.status();
    host = std::move(*memory);
  }
  std::vector<double> roofs;
  FLASHPLUS_RETURN_IF_ERROR(
      timeRounds(bench, sensors, out.wanted_rounds, out.milliseconds, host, entries, out.clocks, roofs));
  out.rounds = entries.empty() ? out.wanted_rounds : static_cast<int>(entries.back().seconds.size());
  out.host_roof = host.has_value();
  out.roof = host ? median(roofs) : 1e9 * flags.roof;
  out.entries = std::move(entries);
  return out;
}

/// A result file's fields but for its cells.
Json headOf(const BenchFlags &flags, const Json &facts, const Timed &timed) {
  Json head = {{"format", kFormat}};
  head.update(facts);
  head["rounds"] = timed.rounds;
  head["milliseconds"] = timed.milliseconds;
  if (!flags.suite.empty())
    head["suite"] = flags.suite;
  if (timed.host_roof && timed.roof > 0) {
    head["roof_bytes_per_second"] = rounded(timed.roof);
    head["roof_bytes_source"] = "a plain read of host memory in the same rounds";
  }
  setRoofs(flags, head);
  head["clocks"] = timed.clocks;
  return head;
}

void printResults(const BenchFlags &flags, const Timed &timed, const Json &head,
                  const std::vector<Json> &cells, const Json &baseline) {
  if (flags.common.json) {
    Json whole = head;
    whole["cells"] = cells;
    if (!baseline.is_null())
      for (Json &cell : whole["cells"])
        if (double before = findBaseline(cell, baseline); before > 0)
          cell["change_percent"] = rounded(100 * (cell["tflops"].get<double>() / before - 1));
    printJson(whole);
    return;
  }
  printTable(timed.entries, cells, baseline, flags.suite);
  if (timed.roof > 0)
    std::printf("roof: %s GB/s%s\n", numberText(timed.roof / 1e9, 4).c_str(),
                timed.host_roof ? ", a plain read of host memory in the same rounds" : ", of --roof");
}

/// The files that were asked for. Each is tried; the first failure is returned.
Status writeResults(const BenchFlags &flags, flashplus_context *context, const Timed &timed, const Json &head,
                    const std::vector<Json> &cells) {
  Status kept =
      flags.json_file.empty() ? Status::ok() : writeText(flags.json_file, jsonLines(head, "cells", cells));
  if (!flags.draws())
    return kept;
  Json whole = head;
  whole["cells"] = cells;
  Json kernels = Json::array();
  if (!flags.html.empty())
    for (const Entry &entry : timed.entries)
      addKernelFacts(context, entry.prepared->plan(), kernels);
  whole["kernels"] = std::move(kernels);
  const Status drawn = writePictures(flags, &whole);
  return kept ? drawn : kept;
}

Status checkFlags(const BenchFlags &flags) {
  if (!flags.overlays.empty() && !flags.draws())
    return invalidArgument("--overlay: only with --plot or --html");
  if (!flags.plot_title.empty() && !flags.draws())
    return invalidArgument("--plot-title: only with --plot or --html");
  if (!flags.suite.empty()) {
    std::vector<std::string> allowed = {
        "--suite",        "--tokens", "--schedule", "--device",    "--threads",    "--rounds",
        "--milliseconds", "--json",   "--plot",     "--html",      "--plot-title", "--baseline",
        "--overlay",      "--peak",   "--roof",     "--cache-dir", "--backward"};
    if (!flags.decode())
      allowed.push_back("--hidden");
    if (const std::string other = flags.given.but(allowed); !other.empty())
      return invalidArgument("--suite " + flags.suite + ": chooses its own shapes, so that " + other +
                             " does not go with it; " +
                             (flags.decode() ? "--tokens scales them" : "--tokens and --hidden scale them"));
    if (flags.decode() && flags.backward)
      return invalidArgument("--backward: not with --suite decode, whose steps have none");
  }
  return prepareOutputs({{"--plot", flags.plot, ".svg"},
                         {"--html", flags.html, ".html .htm"},
                         {"--json", flags.json_file, ".json"}});
}

Result<int> bench(const BenchFlags &flags) {
  const Interruptible asks;
  FLASHPLUS_RETURN_IF_ERROR(checkFlags(flags));
  // Files alone are drawn. Every flag but those that say how asks for a measurement.
  if (!flags.overlays.empty() &&
      flags.given.but({"--overlay", "--plot", "--html", "--plot-title", "--peak", "--roof", "--cache-dir"})
          .empty()) {
    FLASHPLUS_RETURN_IF_ERROR(writePictures(flags, nullptr));
    return kExitGood;
  }
  auto baseline = baselineOf(flags);
  if (!baseline)
    return baseline.status();
  auto device = TimedDevice::open(flags);
  if (!device)
    return device.status();
  if (!flags.common.json)
    sayWhere(device->context.get(), flags, device->device, device->facts);
  const auto wanted = wantedOf(flags, device->isGpu());
  if (!wanted)
    return wanted.status();
  std::vector<BenchCase> cases;
  for (const Wanted &w : *wanted)
    cases.push_back(w.problem);
  auto made = Workbench::make(device->context.get(), device->device, cases);
  if (!made)
    return made.status();
  auto entries = prepareAll(**made, *wanted);
  if (!entries)
    return entries.status();
  constexpr const char *kNothing = "nothing was measured; the kernels that were compiled are in the cache";
  if (interrupted())
    return endedEarly(kNothing);
  auto timed = timeAll(flags, *device, **made, std::move(*entries));
  if (!timed)
    return timed.status();
  if (timed->rounds == 0)
    return endedEarly(kNothing);
  std::vector<Json> cells;
  for (const Entry &entry : timed->entries)
    cells.push_back(cellJson(entry, timed->entries, timed->roof));
  const Json head = headOf(flags, device->facts, *timed);
  // What was measured is printed whether or not it can be kept.
  printResults(flags, *timed, head, cells, *baseline);
  FLASHPLUS_RETURN_IF_ERROR(writeResults(flags, device->context.get(), *timed, head, cells));
  if (timed->rounds < timed->wanted_rounds)
    return endedEarly("what is shown" + (flags.json_file.empty() ? "" : " and in " + flags.json_file) +
                      " is of " + std::to_string(timed->rounds) + " of " +
                      std::to_string(timed->wanted_rounds) + " rounds");
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
      ->transform(oneOf({"features", "decode"}))
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
  verb->add_option(
          "--overlay", f.overlays,
          "Draw a result file too (repeatable; also of bench/forward_gpu.py); with no flag but those of "
          "pictures and roofs, nothing is measured")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_option("--plot-title", f.plot_title, "Title of the plot and the report [pass and device]")
      ->type_name("TEXT");
  addCacheFlag(*verb, f.common);
  verb->callback([flags, selected, verb] {
    flags->given = GivenFlags::of(*verb);
    *selected = [flags] { return bench(*flags); };
  });
}

} // namespace flashplus::tool
