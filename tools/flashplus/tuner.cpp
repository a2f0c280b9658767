// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/tuner.h"

#include "templates/registry.h"
#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/judge.h"
#include "tools/flashplus/near.h"
#include "tools/flashplus/parallel.h"
#include "tools/flashplus/progress.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <utility>

namespace flashplus::tool {

namespace {

/// Parses "tile_m=128,192" into the values that a knob is kept to.
Result<std::map<std::string, std::set<int>>> parseKnobs(const std::vector<std::string> &flags) {
  std::map<std::string, std::set<int>> kept;
  for (const std::string &text : flags) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      return invalidArgument("--knob '" + text + "': must be name=integer,...");
    auto values = parseIntegers("--knob " + text.substr(0, equals), text.substr(equals + 1), 1, 1000);
    if (!values)
      return values.status();
    for (int64_t value : *values)
      if (value < INT_MIN || value > INT_MAX)
        return invalidArgument("--knob '" + text + "': " + std::to_string(value) +
                               " is no value of a knob, at most " + std::to_string(INT_MAX));
      else
        kept[text.substr(0, equals)].insert(static_cast<int>(value));
  }
  return kept;
}

/// What there is to choose from, of all problems together.
struct Choices {
  std::set<std::string> algorithms;
  std::map<std::string, std::set<int>> knobs;
};

template <class Values> std::string listOf(const Values &values) {
  std::string text;
  for (const auto &value : values) {
    text += text.empty() ? "" : ", ";
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>)
      text += value;
    else
      text += std::to_string(value);
  }
  return text.empty() ? "none" : text;
}

/// Refuses a name or a value of --algorithm and --knob that no schedule of any problem has: it would choose
/// nothing, or everything.
Status checkChoices(const TuneFlags &flags, const Choices &all, bool any) {
  for (const std::string &name : flags.algorithms)
    if (!all.algorithms.count(name))
      return invalidArgument(
          "--algorithm '" + name + "': no schedule of these problems is of it; there are " +
          listOf(all.algorithms) + didYouMean(name, {all.algorithms.begin(), all.algorithms.end()}));
  auto kept = parseKnobs(flags.knobs);
  if (!kept)
    return kept.status();
  for (const auto &[name, values] : *kept) {
    const auto known = all.knobs.find(name);
    if (known == all.knobs.end()) {
      std::set<std::string> names;
      for (const auto &[knob, unused] : all.knobs)
        names.insert(knob);
      return invalidArgument("--knob '" + name + "': no schedule of these problems has it; there are " +
                             listOf(names) + didYouMean(name, {names.begin(), names.end()}));
    }
    for (int value : values)
      if (!known->second.count(value))
        return invalidArgument("--knob '" + name + "=" + std::to_string(value) +
                               "': no schedule of these problems has this value; there are " +
                               listOf(known->second));
  }
  return any ? Status::ok()
             : invalidArgument("--knob and --algorithm: no schedule of these problems has all of these");
}

/// Packed rows of a key head in a call that a kernel which merges its shares may be for; 0: of none.
int64_t fewRows(const KernelSpec &spec, const DeviceProfile &device, const BenchCase &c) {
  const int64_t rows = c.seqlen_q * (c.heads_q / c.heads_k);
  for (const Candidate &candidate : feasibleCandidates(spec, device))
    if (candidate.item.merges && rows <= int64_t{candidate.item.rows} * candidate.item.short_tiles)
      return rows;
  return 0;
}

Result<DeviceProfile> profileOf(const Json &device) {
  auto target = Target::parse(device.value("target", ""));
  if (!target)
    return target.status();
  DeviceProfile profile = offlineProfile(*target);
  profile.multiprocessors = device.value("multiprocessors", 1);
  if (int bytes = device.value("shared_memory_per_block", 0))
    profile.shared_memory_per_block = bytes;
  return profile;
}

/// `few_rows`: as fewRows(), the most of the group's problems.
Result<std::vector<std::string>> spaceOf(const KernelSpec &spec, const DeviceProfile &profile,
                                         int64_t few_rows, const TuneFlags &flags, Choices &all) {
  auto kept = parseKnobs(flags.knobs);
  if (!kept)
    return kept.status();
  const auto space = scheduleSpace(spec, profile);
  int most_rows = 0; // of a tile of those that merge
  for (const Schedule &s : space)
    if (const ItemTraits item = itemTraits(s); item.merges)
      most_rows = std::max(most_rows, item.rows);
  std::vector<std::string> texts;
  for (const Schedule &s : space) {
    all.algorithms.insert(s.algorithm);
    for (const auto &[name, value] : s.knobs)
      all.knobs[name].insert(value);
    // Tiles that have room for all rows, else only the largest.
    if (const ItemTraits item = itemTraits(s);
        item.merges && (!few_rows || (item.rows < few_rows && item.rows < most_rows)))
      continue;
    bool in = flags.algorithms.empty() ||
              std::count(flags.algorithms.begin(), flags.algorithms.end(), s.algorithm) != 0;
    for (const auto &[name, values] : *kept)
      in &= s.knobs.count(name) == 0 || values.count(s.get(name)) != 0;
    if (in)
      texts.push_back(s.text());
  }
  return texts;
}

} // namespace

Status Tuner::plan(std::vector<BenchCase> cases) {
  cases_ = std::move(cases);
  auto bench = Workbench::make(context_, device_, cases_);
  if (!bench)
    return bench.status();
  bench_ = std::move(*bench);
  auto profile = profileOf(facts_);
  if (!profile)
    return profile.status();
  // Problems with few rows are a group of their own where there are kernels for them alone.
  std::map<std::pair<std::string, bool>, size_t> by_spec;
  std::vector<int64_t> few_rows; // of a group, the most
  std::vector<KernelSpec> specs;
  Choices all;
  bool any = false;
  for (size_t i = 0; i < cases_.size(); ++i) {
    auto prepared = bench_->prepare(cases_[i], "");
    if (!prepared)
      return Status(prepared.status().code(), cases_[i].label() + ": " + prepared.status().message());
    for (const Prepared::Step &step : (*prepared)->steps()) {
      auto spec = KernelSpec::parse(step.spec);
      if (!spec)
        return spec.status();
      const Results whole = std::exchange(spec->results, Results::Final);
      if (scheduleSpace(*spec, *profile).empty())
        spec->results = whole; // of a kernel that only ever makes parts
      const int64_t few = fewRows(*spec, *profile, cases_[i]);
      const auto [at, added] = by_spec.emplace(std::pair(spec->text(), few != 0), groups_.size());
      if (added) {
        groups_.emplace_back().spec = spec->text();
        few_rows.push_back(0);
        specs.push_back(*spec);
      }
      few_rows[at->second] = std::max(few_rows[at->second], few);
      groups_[at->second].cells.push_back(i);
    }
    chosen_.push_back(std::move(*prepared));
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    TuneGroup &group = groups_[i];
    auto space = spaceOf(specs[i], *profile, few_rows[i], flags_, all);
    if (!space)
      return space.status();
    any |= !space->empty();
    for (const std::string &text : *space)
      group.trials.push_back({text, "", {}, {}, {}});
    const std::string today = group.today(*chosen_[group.cells.front()]);
    if (!std::ranges::count(*space, today))
      group.trials.push_back({today, "", {}, {}, {}});
  }
  return checkChoices(flags_, all, any);
}

Status Tuner::compileAndJudge() {
  std::vector<std::pair<TuneGroup *, Trial *>> all;
  for (TuneGroup &group : groups_)
    for (Trial &candidate : group.trials)
      all.emplace_back(&group, &candidate);
  const int jobs =
      flags_.jobs ? flags_.jobs : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  {
    Progress progress("compiling", static_cast<int64_t>(all.size()));
    inParallel(all.size(), jobs, [&](size_t i) {
      if (interrupted())
        return;
      auto [group, candidate] = all[i];
      auto prepared = bench_->prepare(cases_[group->cells.front()], candidate->schedule);
      if (!prepared)
        candidate->failed = prepared.status().message();
      progress.step();
    });
  }
  Progress progress("checking", static_cast<int64_t>(all.size()));
  for (TuneGroup &group : groups_) {
    const BenchCase reduced =
        reducedCase(cases_[group.cells.front()], facts_.value("multiprocessors", 1), gpu());
    auto judge = Judge::make(context_, device_, reduced, flags_.common.threads);
    if (!judge)
      return judge.status();
    for (Trial &candidate : group.trials) {
      if (interrupted())
        return Status::ok();
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

Status Tuner::timeCell(size_t cell, const std::vector<Trial *> &trials, int rounds, double milliseconds,
                       double drift) {
  if (interrupted())
    return Status::ok();
  struct Running {
    Trial *candidate;
    std::unique_ptr<Prepared> prepared;
    int calls;
  };
  std::vector<Running> running;
  for (Trial *candidate : trials) {
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
    const int calls =
        static_cast<int>(std::clamp(milliseconds / 1000 / std::max(*once, 1e-7), 1.0, 100000.0));
    running.push_back({candidate, std::move(*prepared), calls});
  }
  const Prepared &reference = *chosen_[cell];
  auto calls = bench_->calibrate(reference, milliseconds);
  if (!calls)
    return calls.status();
  // The reference runs before and after every few trials, and a candidate counts as a ratio to the mean of
  // both. Where the two differ, clocks moved: the block is measured again, a few times, and what still drifts
  // is left out.
  constexpr size_t kBlock = 6;
  for (int round = 0; round < rounds && !interrupted(); ++round)
    for (size_t begin = 0; begin < running.size(); begin += kBlock) {
      const size_t end = std::min(running.size(), begin + kBlock);
      for (int attempt = 0; attempt < 3; ++attempt) {
        std::vector<double> seconds;
        auto before = bench_->time(reference, calls->count);
        for (size_t i = begin; before && i < end; ++i) {
          auto one = bench_->time(*running[i].prepared, running[i].calls);
          if (!one)
            return Status(one.status().code(),
                          running[i].candidate->schedule + ": " + one.status().message());
          seconds.push_back(*one);
        }
        auto after = bench_->time(reference, calls->count);
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

/// Before anything is known of their speed: each timing takes its milliseconds, and the reference two in six
/// more.
double Tuner::estimate() const {
  const double each = flags_.milliseconds > 0 ? flags_.milliseconds : gpu() ? 8 : 15;
  double kernels = 0, milliseconds = 0;
  for (const TuneGroup &group : groups_) {
    const double trials = static_cast<double>(group.trials.size()),
                 cells = static_cast<double>(group.cells.size());
    const double coarse = std::min(cells, static_cast<double>(flags_.coarse_lengths));
    const double fine = std::min(trials, coarse * flags_.keep);
    kernels += trials;
    milliseconds += trials * coarse * flags_.coarse_rounds * (gpu() ? 1.0 : each / 3);
    milliseconds += fine * cells * (flags_.rounds ? flags_.rounds : 5) * each;
  }
  constexpr double kCompiling =
      0.3; // seconds of a core, as docs/rationale/compile-time.md has it, checked and all
  const double jobs = flags_.jobs ? flags_.jobs : std::max(1u, std::thread::hardware_concurrency());
  return kernels * kCompiling / jobs + milliseconds * 4 / 3 / 1e3;
}

Status Tuner::measure() {
  size_t kernels = 0;
  for (const TuneGroup &group : groups_)
    kernels += group.trials.size();
  sayEstimate(std::to_string(kernels) + " kernels to compile, check and time", estimate());
  const Interruptible asks;
  FLASHPLUS_RETURN_IF_ERROR(compileAndJudge());
  Progress progress("timing", static_cast<int64_t>(groups_.size()));
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (!interrupted())
      FLASHPLUS_RETURN_IF_ERROR(measureGroup(groups_[i]));
    if (interrupted()) { // a spec that was not measured whole would be judged by half its rounds
      unmeasured_ = groups_.size() - i;
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i), groups_.end());
      break;
    }
    progress.step();
  }
  return Status::ok();
}

/// All candidates at a few lengths, then the best of each of those at every length.
Status Tuner::measureGroup(TuneGroup &group) {
  std::vector<size_t> coarse = group.cells;
  const size_t most = static_cast<size_t>(std::max(1, flags_.coarse_lengths));
  if (coarse.size() > most) { // evenly spread, the ends included
    std::vector<size_t> spread;
    for (size_t i = 0; i < most; ++i)
      spread.push_back(coarse[most == 1 ? coarse.size() - 1 : i * (coarse.size() - 1) / (most - 1)]);
    coarse = spread;
  }
  const double milliseconds = flags_.milliseconds > 0 ? flags_.milliseconds : gpu() ? 8 : 15;
  std::vector<Trial *> in;
  for (Trial &candidate : group.trials)
    if (candidate.failed.empty())
      in.push_back(&candidate);
  if (in.empty())
    return Status(StatusCode::Unsupported,
                  cases_[group.cells.front()].label() + ": no schedule is feasible and right");
  std::set<Trial *> kept;
  for (size_t cell : coarse) {
    FLASHPLUS_RETURN_IF_ERROR(timeCell(cell, in, flags_.coarse_rounds, gpu() ? 1.0 : milliseconds / 3,
                                       2 * flags_.drift)); // shorter times scatter more
    std::vector<Trial *> order = in;
    std::sort(order.begin(), order.end(), [&](const Trial *a, const Trial *b) {
      return std::pair(a->ratio(cell), a->schedule) < std::pair(b->ratio(cell), b->schedule);
    });
    for (size_t i = 0; i < order.size() && i < static_cast<size_t>(flags_.keep); ++i)
      kept.insert(order[i]);
  }
  std::vector<Trial *> fine;
  for (Trial &candidate : group.trials) // in a fixed order, and what dispatch takes now always
    if (kept.count(&candidate) ||
        (candidate.failed.empty() && std::any_of(group.cells.begin(), group.cells.end(), [&](size_t cell) {
           return group.today(*chosen_[cell]) == candidate.schedule;
         })))
      fine.push_back(&candidate);
  const int rounds = flags_.rounds ? flags_.rounds : 5;
  for (size_t cell : group.cells) {
    for (Trial *candidate : fine) { // coarse times are not mixed with those that decide
      candidate->seconds.erase(cell);
      candidate->ratios.erase(cell);
      candidate->fine.insert(cell);
    }
    FLASHPLUS_RETURN_IF_ERROR(timeCell(cell, fine, rounds, milliseconds, flags_.drift));
  }
  return Status::ok();
}

} // namespace flashplus::tool
