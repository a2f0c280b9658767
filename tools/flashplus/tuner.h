// SPDX-License-Identifier: BSD-3-Clause
// Times every feasible schedule of some problems on one device.
#pragma once

#include "tools/flashplus/machine.h"
#include "tools/flashplus/tune_record.h"

namespace flashplus::tool {

/// What `flashplus tune` is told.
struct TuneFlags : CaseFlags {
  std::string output, table, html;
  std::vector<std::string> records, algorithms, knobs;
  int rounds = 0, coarse_rounds = 2, keep = 5, jobs = 0, coarse_lengths = 3;
  double milliseconds = 0, drift = 4;
  bool dry_run = false;
  GivenFlags given;
};

/// plan(), then measure(), then what was found. Not thread-safe. `flags` and the context must outlive it.
class Tuner {
public:
  Tuner(const TuneFlags &flags, flashplus_context *context, DLDevice device, const Json &device_facts)
      : flags_(flags), context_(context), device_(device), facts_(device_facts),
        sensors_(device, facts_.value("model", "")) {}

  /// Finds each spec's schedules. Failures name the problem or the flag.
  Status plan(std::vector<BenchCase> cases);
  /// Compiles, judges and times them. Schedules that fail are left out and say why; the device's failures end
  /// it. When it is interrupted, groups() has only those that were measured whole.
  Status measure();

  const BenchCase &problem(size_t cell) const { return cases_[cell]; }
  const std::vector<TuneGroup> &groups() const { return groups_; }
  const Prepared &chosen(size_t cell) const { return *chosen_[cell]; }
  const std::vector<Json> &clocks() const { return clocks_; } ///< One reading after each timing of a cell.
  size_t unmeasured() const { return unmeasured_; }           ///< Groups that an interruption left out.
  int discarded() const { return discarded_; }                ///< Blocks measured again for drift.

private:
  bool gpu() const { return device_.device_type == kDLCUDA; }
  double estimate() const; ///< Seconds.
  Status compileAndJudge();
  Status timeCell(size_t cell, const std::vector<Trial *> &trials, int rounds, double milliseconds,
                  double drift);
  Status measureGroup(TuneGroup &group);

  const TuneFlags &flags_;
  flashplus_context *context_;
  DLDevice device_;
  Json facts_; ///< Of the device.
  MachineSensors sensors_;
  std::vector<BenchCase> cases_;
  std::unique_ptr<Workbench> bench_;
  std::vector<std::unique_ptr<Prepared>>
      chosen_; ///< Of each cell, what the library takes now: the reference.
  std::vector<TuneGroup> groups_;
  std::vector<Json> clocks_;
  int discarded_ = 0;
  size_t unmeasured_ = 0;
};

} // namespace flashplus::tool
