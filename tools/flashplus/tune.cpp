// SPDX-License-Identifier: BSD-3-Clause
// flashplus tune: times every feasible schedule of some problems and keeps what it measured as a tuning record, from which
// plans take their schedules. Also writes default tables from records (tune_table.cpp).
#include "runtime/plans/tuning_record.h"
#include "tools/flashplus/bench_case.h"
#include "tools/flashplus/check.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/progress.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/tune_table.h"
#include "tools/flashplus/workbench.h"
#include "tools/io/convert.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <thread>
#include <tuple>

namespace flashplus::tool {

namespace {

struct TuneFlags : CaseFlags {
  std::string output, table;
  std::vector<std::string> records, algorithms, knobs;
  int rounds = 0, coarse_rounds = 2, keep = 5, jobs = 0, coarse_lengths = 3;
  double milliseconds = 0, drift = 4;
  bool dry_run = false;
};

/// A schedule's way through the tuning of one spec.
struct Candidate {
  std::string schedule, failed; ///< Why it is out; "" while it is in.
  std::map<size_t, std::vector<double>> seconds, ratios; ///< By cell.
  std::set<size_t> fine;                                 ///< Cells at which it was among the last.

  double ratio(size_t cell) const {
    auto at = ratios.find(cell);
    return at == ratios.end() || at->second.empty() ? INFINITY : median(at->second);
  }
};

/// Cells of one spec, and its candidates.
struct Group {
  std::vector<size_t> cells;
  std::vector<Candidate> candidates;
};

/// Parses "tile_m=128,192" into the values that a knob is kept to.
Result<std::map<std::string, std::set<int>>> parseKnobs(const std::vector<std::string> &flags) {
  std::map<std::string, std::set<int>> kept;
  for (const std::string &text : flags) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      return invalidArgument("--knob '" + text + "': must be name=integer,...");
    auto values = parseIntegers("--knob", text.substr(equals + 1), 1, 1000);
    if (!values)
      return values.status();
    for (int64_t value : *values)
      kept[text.substr(0, equals)].insert(static_cast<int>(value));
  }
  return kept;
}

Result<std::vector<std::string>> spaceOf(const std::string &spec_text, const Json &device, const TuneFlags &flags) {
  auto spec = KernelSpec::parse(spec_text);
  auto target = Target::parse(device.value("target", ""));
  auto kept = parseKnobs(flags.knobs);
  if (!spec || !target || !kept)
    return !spec ? spec.status() : !target ? target.status() : kept.status();
  spec->results = Results::Final;
  DeviceProfile profile = offlineProfile(*target);
  profile.multiprocessors = device.value("multiprocessors", 1);
  if (int bytes = device.value("shared_memory_per_block", 0))
    profile.shared_memory_per_block = bytes;
  std::vector<std::string> texts;
  for (const Schedule &s : scheduleSpace(*spec, profile)) {
    bool in = flags.algorithms.empty() ||
              std::count(flags.algorithms.begin(), flags.algorithms.end(), s.algorithm) != 0;
    for (const auto &[name, values] : *kept)
      in &= s.knobs.count(name) == 0 || values.count(s.get(name)) != 0;
    if (in)
      texts.push_back(s.text());
  }
  return texts;
}

/// A smaller problem of the same spec, whose blocks still have several work items and whose lengths no tile divides.
BenchCase reducedCase(const BenchCase &c, int multiprocessors, bool gpu) {
  BenchCase r = c;
  r.seqlen_q = std::min<int64_t>(c.seqlen_q, 257);
  r.seqlen_k = std::min<int64_t>(c.seqlen_k, 500);
  const int64_t group = c.heads_q / c.heads_k;
  r.heads_k = std::min<int64_t>(c.heads_k, 2);
  r.heads_q = r.heads_k * group;
  const int64_t wanted = gpu ? multiprocessors * 3 / 4 : 2; // (batch, head) pairs; each has two or more work items
  r.batch = std::max<int64_t>(1, (wanted + r.heads_q - 1) / r.heads_q);
  return r;
}

/// Calls `body(i)` for each i below `count` on `jobs` threads.
template <class Body> void inParallel(size_t count, int jobs, Body body) {
  std::atomic<size_t> next = 0;
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < count;)
      body(i);
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < jobs; ++i)
    threads.emplace_back(work);
  work();
}

/// Runs every candidate on the reduced problem with outputs of NaN. The first that is right against fp64 becomes the
/// measure of the others, which may be as far from it as two right answers can be: that costs one reference a spec.
class Judge {
public:
  static Result<std::unique_ptr<Judge>> make(flashplus_context *context, DLDevice device, const BenchCase &c,
                                             int threads) {
    std::unique_ptr<Judge> judge(new Judge());
    judge->context_ = context;
    judge->device_ = device;
    judge->threads_ = threads;
    Problem &p = judge->problem_;
    const io::ElementType type = c.dtype == DType::F16    ? io::ElementType::F16
                                 : c.dtype == DType::BF16 ? io::ElementType::BF16
                                                          : io::ElementType::F32;
    const std::vector<int64_t> shapes[] = {{c.batch, c.seqlen_q, c.heads_q, c.head_dim},
                                           {c.batch, c.seqlen_k, c.heads_k, c.head_dim},
                                           {c.batch, c.seqlen_k, c.heads_k, c.head_dim_v}};
    io::Tensor *tensors[] = {&p.q, &p.k, &p.v};
    for (size_t i = 0; i < 3; ++i) {
      auto made = randomTensor(shapes[i], type, 11 + i);
      if (!made)
        return made.status();
      *tensors[i] = std::move(*made);
    }
    if (c.alibi) {
      auto slopes = randomTensor({c.heads_q}, io::ElementType::F32, 17);
      if (!slopes)
        return slopes.status();
      p.alibi_slopes = std::move(*slopes);
    }
    p.causal = c.causal;
    p.window_left = static_cast<int>(c.window_left);
    p.window_right = static_cast<int>(c.window_right);
    p.softcap = static_cast<float>(c.softcap);
    p.num_splits = 1;
    return judge;
  }

  /// "" if the schedule's result is right, else what is wrong.
  Result<std::string> judge(const std::string &schedule) {
    DeviceProblem on_device; // poisons its outputs
    FLASHPLUS_RETURN_IF_ERROR(on_device.upload(context_, device_, problem_));
    flashplus_forward_args args = on_device.args();
    args.schedule = schedule.c_str();
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_forward(context_, &args, nullptr)));
    FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_synchronize(context_, device_, nullptr)));
    auto output = on_device.output(), lse = on_device.lse();
    if (!output || !lse)
      return output ? lse.status() : output.status();
    if (!right_) {
      auto report = checkOutputs(problem_, *output, *lse, threads_);
      if (!report)
        return report.status();
      if (!report->good())
        return "wrong: error " + numberText(report->error) + " of a row, allowed " + numberText(report->bound);
      right_ = std::move(*output);
      right_lse_ = std::move(*lse);
      allowed_ = 2 * report->bound; // two answers, each within the bound of the exact one
      allowed_lse_ = 2 * report->lse_bound;
      return std::string();
    }
    const double error = rowError(*output, *right_), lse_error = largestDistance(*lse, *right_lse_);
    if (!(error <= allowed_) || !(lse_error <= allowed_lse_))
      return "wrong: " + numberText(error) + " of a row and " + numberText(lse_error) +
             " of lse from a checked result, allowed " + numberText(allowed_) + " and " + numberText(allowed_lse_);
    return std::string();
  }

private:
  Judge() = default;

  /// Largest distance of a row over the row's largest value; infinity for a NaN.
  static double rowError(const io::Tensor &a, const io::Tensor &b) {
    const int64_t width = a.shape.back(), rows = a.elements() / std::max<int64_t>(1, width);
    constexpr int64_t kRows = 4096; // of a thread at a time: millions of elements are compared for every candidate
    std::vector<double> worst(static_cast<size_t>((rows + kRows - 1) / kRows), 0);
    inParallel(worst.size(), static_cast<int>(std::max(1u, std::thread::hardware_concurrency())), [&](size_t part) {
      for (int64_t row = static_cast<int64_t>(part) * kRows, end = std::min(rows, row + kRows); row < end; ++row) {
        double error = 0, largest = 0;
        for (int64_t i = row * width; i < (row + 1) * width; ++i) {
          const double x = io::elementAt(a, i), y = io::elementAt(b, i);
          error = std::max(error, std::isnan(x) ? INFINITY : std::fabs(x - y));
          largest = std::max(largest, std::fabs(y));
        }
        if (error > 0)
          worst[part] = std::max(worst[part], largest > 0 ? error / largest : INFINITY);
      }
    });
    return worst.empty() ? 0 : *std::max_element(worst.begin(), worst.end());
  }
  static double largestDistance(const io::Tensor &a, const io::Tensor &b) {
    double worst = 0;
    for (int64_t i = 0; i < a.elements(); ++i) {
      const double x = io::elementAt(a, i), y = io::elementAt(b, i);
      if (std::isnan(x))
        return NAN;
      if (x != y)
        worst = std::max(worst, std::fabs(x - y));
    }
    return worst;
  }

  flashplus_context *context_ = nullptr;
  DLDevice device_ = {};
  int threads_ = 0;
  Problem problem_;
  std::optional<io::Tensor> right_, right_lse_;
  double allowed_ = 0, allowed_lse_ = 0;
};

class Tuner {
public:
  Tuner(const TuneFlags &flags, flashplus_context *context, DLDevice device, Json facts)
      : flags_(flags), context_(context), device_(device), facts_(std::move(facts)),
        sensors_(device, facts_["device"].value("model", "")) {}

  Result<int> run(std::vector<BenchCase> cases);

private:
  bool gpu() const { return device_.device_type == kDLCUDA; }
  Status plan();
  Status compileAndJudge();
  Status timeCell(size_t cell, const std::vector<Candidate *> &candidates, int rounds, double milliseconds, double drift);
  Status measure(Group &group);
  Json cellJson(const Group &group, size_t cell) const;

  const TuneFlags &flags_;
  flashplus_context *context_;
  DLDevice device_;
  Json facts_;
  MachineSensors sensors_;
  std::vector<BenchCase> cases_;
  std::unique_ptr<Workbench> bench_;
  std::vector<std::unique_ptr<Prepared>> chosen_; ///< Of each cell, what the library takes now: the reference.
  std::vector<Group> groups_;
  std::vector<Json> clocks_;
  int discarded_ = 0;
};

Status Tuner::plan() {
  std::map<std::string, size_t> by_spec;
  for (size_t i = 0; i < cases_.size(); ++i) {
    auto prepared = bench_->prepare(cases_[i], "");
    if (!prepared)
      return Status(prepared.status().code(), cases_[i].label() + ": " + prepared.status().message());
    auto spec = KernelSpec::parse((*prepared)->spec());
    if (!spec)
      return spec.status();
    spec->results = Results::Final;
    const auto [at, added] = by_spec.emplace(spec->text(), groups_.size());
    if (added) {
      auto space = spaceOf(spec->text(), facts_["device"], flags_);
      if (!space)
        return space.status();
      groups_.emplace_back();
      std::set<std::string> names(space->begin(), space->end());
      for (const std::string &text : *space)
        groups_.back().candidates.push_back({text, "", {}, {}, {}});
      if (names.insert((*prepared)->schedule()).second)
        groups_.back().candidates.push_back({(*prepared)->schedule(), "", {}, {}, {}});
    }
    groups_[at->second].cells.push_back(i);
    chosen_.push_back(std::move(*prepared));
  }
  return Status::ok();
}

Status Tuner::compileAndJudge() {
  std::vector<std::pair<Group *, Candidate *>> all;
  for (Group &group : groups_)
    for (Candidate &candidate : group.candidates)
      all.emplace_back(&group, &candidate);
  const int jobs = flags_.jobs ? flags_.jobs : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  {
    Progress progress("compiling", static_cast<int64_t>(all.size()));
    inParallel(all.size(), jobs, [&](size_t i) {
      auto [group, candidate] = all[i];
      auto prepared = bench_->prepare(cases_[group->cells.front()], candidate->schedule);
      if (!prepared)
        candidate->failed = prepared.status().message();
      progress.step();
    });
  }
  Progress progress("checking", static_cast<int64_t>(all.size()));
  for (Group &group : groups_) {
    const BenchCase reduced =
        reducedCase(cases_[group.cells.front()], facts_["device"].value("multiprocessors", 1), gpu());
    auto judge = Judge::make(context_, device_, reduced, flags_.common.threads);
    if (!judge)
      return judge.status();
    for (Candidate &candidate : group.candidates) {
      if (candidate.failed.empty()) {
        auto wrong = (*judge)->judge(candidate.schedule);
        if (!wrong && wrong.status().code() == StatusCode::DeviceError)
          return Status(wrong.status().code(), candidate.schedule + ": " + wrong.status().message());
        candidate.failed = wrong ? *wrong : wrong.status().message();
      }
      progress.step();
    }
  }
  return Status::ok();
}

Status Tuner::timeCell(size_t cell, const std::vector<Candidate *> &candidates, int rounds, double milliseconds,
                       double drift) {
  struct Running {
    Candidate *candidate;
    std::unique_ptr<Prepared> prepared;
    int calls;
  };
  std::vector<Running> running;
  for (Candidate *candidate : candidates) {
    auto prepared = bench_->prepare(cases_[cell], candidate->schedule);
    if (!prepared) {
      candidate->failed = prepared.status().message();
      continue;
    }
    auto once = bench_->time(**prepared, 1); // the first launch of a kernel loads it
    if (once)
      once = bench_->time(**prepared, 1);
    if (!once)
      return Status(once.status().code(), candidate->schedule + ": " + once.status().message());
    const int calls = static_cast<int>(std::clamp(milliseconds / 1000 / std::max(*once, 1e-7), 1.0, 100000.0));
    running.push_back({candidate, std::move(*prepared), calls});
  }
  const Prepared &reference = *chosen_[cell];
  auto calls = bench_->calibrate(reference, milliseconds);
  if (!calls)
    return calls.status();
  // The reference runs before and after every few candidates, and a candidate counts as a ratio to the mean of both. Where
  // the two differ, clocks moved: the block is measured again, a few times, and what still drifts is left out.
  constexpr size_t kBlock = 6;
  for (int round = 0; round < rounds; ++round)
    for (size_t begin = 0; begin < running.size(); begin += kBlock) {
      const size_t end = std::min(running.size(), begin + kBlock);
      for (int attempt = 0; attempt < 3; ++attempt) {
        std::vector<double> seconds;
        auto before = bench_->time(reference, *calls);
        for (size_t i = begin; before && i < end; ++i) {
          auto one = bench_->time(*running[i].prepared, running[i].calls);
          if (!one)
            return Status(one.status().code(), running[i].candidate->schedule + ": " + one.status().message());
          seconds.push_back(*one);
        }
        auto after = bench_->time(reference, *calls);
        if (!before || !after)
          return before ? after.status() : before.status();
        const double mean = (*before + *after) / 2;
        // On a CPU that others use, the last attempt counts whatever it is: medians take care of the rest.
        if (std::fabs(*before - *after) > drift / 100 * mean && (gpu() || attempt < 2)) {
          ++discarded_;
          continue;
        }
        for (size_t i = begin; i < end; ++i) {
          running[i].candidate->seconds[cell].push_back(seconds[i - begin]);
          running[i].candidate->ratios[cell].push_back(seconds[i - begin] / mean);
        }
        break;
      }
    }
  clocks_.push_back(sensors_.read());
  return Status::ok();
}

/// All candidates at a few lengths, then the best of each of those at every length.
Status Tuner::measure(Group &group) {
  std::vector<size_t> coarse = group.cells;
  const size_t most = static_cast<size_t>(std::max(1, flags_.coarse_lengths));
  if (coarse.size() > most) { // evenly spread, the ends included
    std::vector<size_t> spread;
    for (size_t i = 0; i < most; ++i)
      spread.push_back(coarse[most == 1 ? coarse.size() - 1 : i * (coarse.size() - 1) / (most - 1)]);
    coarse = spread;
  }
  const double milliseconds = flags_.milliseconds > 0 ? flags_.milliseconds : gpu() ? 8 : 15;
  std::vector<Candidate *> in;
  for (Candidate &candidate : group.candidates)
    if (candidate.failed.empty())
      in.push_back(&candidate);
  if (in.empty())
    return Status(StatusCode::Unsupported, cases_[group.cells.front()].label() + ": no schedule is feasible and right");
  std::set<Candidate *> kept;
  for (size_t cell : coarse) {
    FLASHPLUS_RETURN_IF_ERROR(timeCell(cell, in, flags_.coarse_rounds, gpu() ? 1.0 : milliseconds / 3,
                                       2 * flags_.drift)); // shorter times scatter more
    std::vector<Candidate *> order = in;
    std::sort(order.begin(), order.end(), [&](const Candidate *a, const Candidate *b) {
      return std::pair(a->ratio(cell), a->schedule) < std::pair(b->ratio(cell), b->schedule);
    });
    for (size_t i = 0; i < order.size() && i < static_cast<size_t>(flags_.keep); ++i)
      kept.insert(order[i]);
  }
  std::vector<Candidate *> fine;
  for (Candidate &candidate : group.candidates) // in a fixed order, and what dispatch takes now always
    if (kept.count(&candidate) ||
        (candidate.failed.empty() && std::any_of(group.cells.begin(), group.cells.end(), [&](size_t cell) {
           return chosen_[cell]->schedule() == candidate.schedule;
         })))
      fine.push_back(&candidate);
  const int rounds = flags_.rounds ? flags_.rounds : 5;
  for (size_t cell : group.cells) {
    for (Candidate *candidate : fine) { // coarse times are not mixed with those that decide
      candidate->seconds.erase(cell);
      candidate->ratios.erase(cell);
      candidate->fine.insert(cell);
    }
    FLASHPLUS_RETURN_IF_ERROR(timeCell(cell, fine, rounds, milliseconds, flags_.drift));
  }
  return Status::ok();
}

Json Tuner::cellJson(const Group &group, size_t cell) const {
  const BenchCase &c = cases_[cell];
  auto spec = KernelSpec::parse(chosen_[cell]->spec());
  spec->results = Results::Final;
  Json out = {{"spec", spec->text()}};
  out["queries"] = c.seqlen_q;
  out["keys"] = c.window_left >= 0 && c.window_right >= 0
                    ? std::min(c.seqlen_k, c.window_left + c.window_right + 1)
                    : c.seqlen_k;
  out["problem"] = c.json();
  out["reference"] = chosen_[cell]->schedule();
  std::vector<const Candidate *> order;
  for (const Candidate &candidate : group.candidates)
    order.push_back(&candidate);
  // Rounds that decide come before those that only pruned.
  auto rank = [&](const Candidate *x) {
    auto at = x->ratios.find(cell);
    const size_t count = at == x->ratios.end() ? 0 : at->second.size();
    return std::tuple(x->fine.count(cell) ? 0 : count ? 1 : 2, x->ratio(cell), x->schedule);
  };
  std::sort(order.begin(), order.end(),
                   [&](const Candidate *a, const Candidate *b) { return rank(a) < rank(b); });
  out["best"] = order.empty() || !std::isfinite(order.front()->ratio(cell)) ? chosen_[cell]->schedule()
                                                                            : order.front()->schedule;
  Json timed = Json::array();
  for (const Candidate *candidate : order) {
    if (!candidate->failed.empty()) {
      timed.push_back({{"schedule", candidate->schedule}, {"failed", candidate->failed}});
      continue;
    }
    if (!std::isfinite(candidate->ratio(cell)))
      continue; // pruned at other lengths
    std::vector<double> seconds, ratios;
    for (double s : candidate->seconds.at(cell))
      seconds.push_back(rounded(s));
    for (double r : candidate->ratios.at(cell))
      ratios.push_back(rounded(r));
    timed.push_back({{"schedule", candidate->schedule},
                     {"ratio", rounded(candidate->ratio(cell))},
                     {"tflops", rounded(c.flops() / median(seconds) / 1e12)},
                     {"coarse", candidate->fine.count(cell) == 0},
                     {"seconds", seconds},
                     {"ratios", ratios}});
  }
  out["timed"] = std::move(timed);
  return out;
}

Result<int> Tuner::run(std::vector<BenchCase> cases) {
  cases_ = std::move(cases);
  auto bench = Workbench::make(context_, device_, cases_);
  if (!bench)
    return bench.status();
  bench_ = std::move(*bench);
  FLASHPLUS_RETURN_IF_ERROR(plan());
  if (flags_.dry_run) {
    size_t kernels = 0;
    for (const Group &group : groups_) {
      kernels += group.candidates.size();
      std::printf("%zu schedules, %zu lengths: %s\n", group.candidates.size(), group.cells.size(),
                  chosen_[group.cells.front()]->spec().c_str());
    }
    std::printf("%zu kernels\n", kernels);
    return kExitGood;
  }
  FLASHPLUS_RETURN_IF_ERROR(compileAndJudge());
  {
    Progress progress("timing", static_cast<int64_t>(groups_.size()));
    for (Group &group : groups_) {
      FLASHPLUS_RETURN_IF_ERROR(measure(group));
      progress.step();
    }
  }
  std::vector<Json> cells;
  for (const Group &group : groups_)
    for (size_t cell : group.cells)
      cells.push_back(cellJson(group, cell));
  Json head = {{"format", kTuningFormat}, {"provenance", "flashplus tune"}};
  head.update(facts_);
  head["coarse_rounds"] = flags_.coarse_rounds;
  head["drift_percent"] = flags_.drift;
  head["blocks_discarded"] = discarded_;
  head["clocks"] = clocks_;
  if (!flags_.output.empty())
    FLASHPLUS_RETURN_IF_ERROR(writeText(flags_.output, jsonLines(head, "cells", cells)));
  if (flags_.common.json) {
    head["cells"] = cells;
    printJson(head);
    return kExitGood;
  }
  Table table({"problem", "schedule", "TFLOP/s", "time over today's"});
  table.alignRightFrom(2);
  for (size_t i = 0, at = 0; i < groups_.size(); ++i)
    for (size_t cell : groups_[i].cells) {
      const Json &row = cells[at++];
      int shown = 0;
      for (const Json &one : row["timed"])
        if (!one.contains("failed") && shown++ < 3)
          table.add({shown == 1 ? cases_[cell].label() : "",
                     one.value("schedule", "") +
                         (one.value("schedule", "") == row.value("reference", "") ? "  (today's)" : ""),
                     numberText(one.value("tflops", 0.0), 4), numberText(one.value("ratio", 0.0), 4)});
    }
  table.print();
  size_t failed = 0, tried = 0;
  for (const Group &group : groups_)
    for (const Candidate &candidate : group.candidates) {
      ++tried;
      if (!candidate.failed.empty() && ++failed <= 5)
        std::fprintf(stderr, "flashplus: left out: %s\n", candidate.failed.c_str());
    }
  std::printf("%zu kernels tried, %zu left out; %d blocks measured again for drift\n", tried, failed, discarded_);
  if (!flags_.output.empty())
    std::printf("written to %s\n", flags_.output.c_str());
  return kExitGood;
}

Result<int> tune(TuneFlags flags) {
  if (!flags.table.empty() || !flags.records.empty()) {
    if (flags.table.empty() || flags.records.empty())
      return invalidArgument("--table and --record go together");
    return writeTable(flags.table, flags.records, flags.output);
  }
  auto timed = TimedDevice::open(flags);
  if (!timed)
    return timed.status();
  auto cases = makeCases(flags, caseDefaults(timed->isGpu()));
  if (!cases)
    return cases.status();
  const Json &d = timed->facts["device"];
  if (!flags.common.json)
    std::fprintf(stderr, "flashplus: tuning on %s: %s (%s)\n", d.value("name", "").c_str(), d.value("model", "").c_str(),
                 d.value("target", "").c_str());
  return Tuner(flags, timed->context.get(), timed->device, timed->facts).run(std::move(*cases));
}

} // namespace

void addTune(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("tune", "Time every feasible schedule and keep a tuning record");
  verb->footer("A record that lies in the folder `tuning` of the cache, or in $FLASHPLUS_TUNING, decides the schedules of\n"
               "later plans on the same model of device (docs/tuning.md).\n\n"
               "Examples:\n"
               "  flashplus tune --shape 4,4096,4096,32,8,128 --causal 1 -o ~/.cache/flashplus/tuning/mine.json\n"
               "  flashplus tune --head-dim 64,96,128,192/128,192,256 --algorithm sm90.flash -o tuning/h200_sm90.json\n"
               "  flashplus tune --table sm90.flash --record tuning/h200_sm90.json -o "
               "templates/forward/sm90_flash/table.inc");
  auto flags = std::make_shared<TuneFlags>();
  TuneFlags &f = *flags;
  addCaseFlags(*verb, f);
  verb->add_option("-o,--out", f.output, "Where the record (or the table) goes; replaced atomically")->type_name("FILE");
  auto list = [](CLI::Option *option) { return option->delimiter(',')->allow_extra_args(false); };
  list(verb->add_option("--algorithm", f.algorithms, "Only schedules of these [all of the target]"))->type_name("NAME,...");
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
  verb->add_option("-j,--jobs", f.jobs, "Kernels compiled at a time [all cores]")->check(CLI::Range(1, 1024))->type_name("N");
  verb->add_flag("--dry-run", f.dry_run, "Print how many kernels there are, and stop");
  verb->add_option("--table", f.table, "Write the default table of this algorithm from --record instead")->type_name("NAME");
  verb->add_option("--record", f.records, "Record that --table is made from; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false);
  addCommonFlags(*verb, f.common);
  verb->callback([flags, selected] { *selected = [flags] { return tune(*flags); }; });
}

} // namespace flashplus::tool
