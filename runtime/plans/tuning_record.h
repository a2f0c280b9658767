// SPDX-License-Identifier: BSD-3-Clause
// Tuning records: what `flashplus tune` measured on one device, as JSON files (docs/tuning.md has the
// format), and the schedules that plans take from them.
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
    double ratio = 0; ///< Time over that of the record's reference schedule in the same rounds; below 1 is
                      ///< faster.
  };
  std::vector<Timed> timed; ///< Those that were measured and right; empty in a record made by hand.
};

struct TuningRecord {
  std::string name;                    ///< Path, for people.
  std::string model, driver, date;     ///< Of the device, its driver, the measurement.
  std::string provenance;              ///< "flashplus tune", or how else it was made.
  Target target;
  std::vector<TuningCell> cells;
  std::vector<std::string> ignored;    ///< Why a cell (an unknown knob, a schedule that is not feasible) was
                                       ///< left out.
};

/// Limits of what a context reads: a record of 670 schedules at 36 problems has half a megabyte and 36 cells.
inline constexpr int64_t kMostTuningBytes = int64_t(4) << 20, kMostTuningFiles = 64,
                         kMostTuningBytesInAll = int64_t(16) << 20;
inline constexpr size_t kMostTuningCells = 4096; ///< Of a record.

/// What is read of a record. `Best` is all that plans need; what was timed is not even kept while parsing.
enum class TuningDetail { All, Best };

/// Never fails for what a cell says, only for text that is no record or has too many cells. InvalidArgument
/// names `name` and what is wrong.
Result<TuningRecord> parseTuningRecord(std::string_view json, const std::string &name,
                                       TuningDetail detail = TuningDetail::All);

/// Whether a cell speaks for `spec`: the same mask bounds and alignment, head dims equal once padded to 16,
/// types of one size, both with a plain score or both without.
bool sameSpecClass(const KernelSpec &cell, const KernelSpec &spec);

/// The records that a context read when it was made. Immutable afterwards, so plans need no key of it.
class TuningRecords {
public:
  /// Reads a file that the user named, or every *.json of a folder in the order of their names, within the
  /// limits above; "" or "off", or a path that is not there, is none. What can't be used goes to `log`. Who
  /// names a path vouches for it; the folder in the cache is read by KernelStore::texts().
  static TuningRecords read(const std::string &path, const std::function<void(const std::string &)> &log);

  bool empty() const { return records_.empty(); }
  /// Choices for a spec on devices of this model ("" = any) and target, of all records; a later record's go
  /// first.
  std::vector<TunedSchedule> find(const KernelSpec &spec, const std::string &model,
                                  const Target &target) const;

  /// Adds the record in `text`; what can't be used goes to `log`.
  void addText(std::string_view text, const std::string &name,
               const std::function<void(const std::string &)> &log);
  void add(TuningRecord record) { records_.push_back(std::move(record)); }

private:
  std::vector<TuningRecord> records_;
};

} // namespace flashplus
