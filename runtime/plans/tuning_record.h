// SPDX-License-Identifier: BSD-3-Clause
// Tuning records: what `flashplus tune` measured on one device, as JSON files (docs/tuning.md has the format), and the
// schedules that plans take from them.
#pragma once

#include "spec/kernel_spec.h"
#include "spec/schedule.h"
#include "spec/target.h"
#include "templates/forward/choose.h"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace flashplus {

inline constexpr std::string_view kTuningFormat = "flashplus-tuning 1";

/// One problem of a record.
struct TuningCell {
  KernelSpec spec;
  int64_t queries = 0, keys = 0; ///< Of a sequence; the keys that a row sees at most.
  Schedule best;                 ///< Complete, known and feasible.
  struct Timed {
    Schedule schedule;
    double ratio = 0; ///< Time over that of the record's reference schedule in the same rounds; below 1 is faster.
  };
  std::vector<Timed> timed; ///< Those that were measured and right; empty in a record made by hand.
};

struct TuningRecord {
  std::string name;                    ///< Path, for people.
  std::string model, driver, date;     ///< Of the device, its driver, the measurement.
  std::string provenance;              ///< "flashplus tune", or how else it was made.
  Target target;
  std::vector<TuningCell> cells;
  std::vector<std::string> ignored;    ///< Why a cell (an unknown knob, a schedule that is not feasible) was left out.
};

/// Never fails for what a cell says, only for text that is no record. InvalidArgument names `name` and what is wrong.
Result<TuningRecord> parseTuningRecord(std::string_view json, const std::string &name);

/// Whether a cell speaks for `spec`: the same mask bounds and alignment, head dims equal once padded to 16, types of one
/// size, both with a plain score or both without.
bool sameSpecClass(const KernelSpec &cell, const KernelSpec &spec);

/// The records that a context read when it was made. Immutable afterwards, so plans need no key of it.
class TuningRecords {
public:
  /// Reads a file, or every *.json of a folder in the order of their names; "" or "off", or a path that is not there, is
  /// none. What can't be used goes to `log`.
  static TuningRecords read(const std::string &path, const std::function<void(const std::string &)> &log);

  bool empty() const { return records_.empty(); }
  /// Choices for a spec on devices of this model ("" = any) and target, of all records; a later record's go first.
  std::vector<TunedSchedule> find(const KernelSpec &spec, const std::string &model, const Target &target) const;

  void add(TuningRecord record) { records_.push_back(std::move(record)); }

private:
  std::vector<TuningRecord> records_;
};

} // namespace flashplus
