// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/tuning_record.h"

#include "spec/json_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace flashplus {
namespace {

using nlohmann::json;

std::string textOf(const json &object, const char *name) {
  const auto at = object.is_object() ? object.find(name) : object.end();
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

int64_t integerOf(const json &object, const char *name) {
  const auto at = object.is_object() ? object.find(name) : object.end();
  return at != object.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
}

/// A schedule that this build has for the spec; else why not.
Result<Schedule> usableSchedule(const std::string &text, const KernelSpec &spec, const Target &target) {
  auto schedule = Schedule::parse(text);
  if (!schedule)
    return schedule.status();
  Schedule complete = completeSchedule(std::move(*schedule));
  const auto launch = launchSchema(spec, complete, target);
  if (!launch)
    return launch.status();
  return complete;
}

Result<TuningCell> parseCell(const json &from, const Target &target) {
  if (!from.is_object())
    return invalidArgument("a cell is not an object");
  auto spec = KernelSpec::parse(textOf(from, "spec"));
  if (!spec)
    return spec.status();
  if (!operationInfo(spec->op).hasScore())
    return invalidArgument("spec '" + spec->text() + "' is of a step whose schedule nobody chooses");
  TuningCell cell{std::move(*spec), integerOf(from, "queries"), integerOf(from, "keys"), {}, {}};
  cell.spec.results = Results::Final; // the schedule of the share is that of the whole
  if (cell.queries < 1 || cell.keys < 1)
    return invalidArgument("queries and keys must be positive integers");
  auto best = usableSchedule(textOf(from, "best"), cell.spec, target);
  if (!best && cell.spec.op == Operation::Backward) { // one that adds dq up makes parts of it only
    cell.spec.results = Results::Partial;
    if (auto part = usableSchedule(textOf(from, "best"), cell.spec, target))
      best = std::move(part);
  }
  if (!best)
    return best.status();
  cell.best = std::move(*best);
  const auto timed = from.find("timed");
  if (timed != from.end() && timed->is_array())
    for (const json &one : *timed) {
      const auto ratio = one.is_object() ? one.find("ratio") : one.end();
      if (!one.is_object() || ratio == one.end() || !ratio->is_number() || !(ratio->get<double>() > 0))
        continue; // rejected ones have a reason instead
      if (auto schedule = usableSchedule(textOf(one, "schedule"), cell.spec, target))
        cell.timed.push_back({std::move(*schedule), ratio->get<double>()});
    }
  return cell;
}

} // namespace

Result<TuningRecord> parseTuningRecord(std::string_view text, const std::string &name, TuningDetail detail) {
  // A record has six levels.
  std::string problem;
  const json record = JsonReader::parse(
      text, {.most_depth = 16, .left_out = detail == TuningDetail::Best ? "timed" : ""}, problem);
  if (!record.is_object() || textOf(record, "format") != kTuningFormat)
    return invalidArgument(name + ": is not a tuning record (its format must be '" +
                           std::string(kTuningFormat) + "')");
  const json device = record.value("device", json::object());
  TuningRecord out;
  out.name = name;
  out.model = textOf(device, "model");
  out.driver = textOf(device, "driver");
  out.date = textOf(record, "date");
  out.provenance = textOf(record, "provenance");
  auto target = Target::parse(textOf(device, "target"));
  if (!target)
    return invalidArgument(name + ": device." + target.status().message());
  out.target = *target;
  const auto cells = record.find("cells");
  if (cells == record.end() || !cells->is_array())
    return invalidArgument(name + ": cells is not an array");
  if (cells->size() > kMostTuningCells)
    return invalidArgument(name + ": has " + std::to_string(cells->size()) + " cells; at most " +
                           std::to_string(kMostTuningCells) + " are allowed");
  for (const json &from : *cells) {
    auto cell = parseCell(from, out.target);
    if (cell)
      out.cells.push_back(std::move(*cell));
    else
      out.ignored.push_back(cell.status().message());
  }
  return out;
}

bool sameSpecClass(const KernelSpec &cell, const KernelSpec &spec) {
  // Every field counts, also those that come later, but for what the class leaves open.
  auto open = [](SpecFields fields) {
    fields.head_dim_qk = (fields.head_dim_qk + 15) / 16;
    fields.head_dim_v = (fields.head_dim_v + 15) / 16;
    fields.dtype = dtypeBytes(fields.dtype) == 2 ? DType::BF16 : DType::F32;
    fields.results = Results::Final;
    fields.sinks = Sinks::None; // a few instructions where a row is finished
    return fields;
  };
  return open(cell) == open(spec) && cell.score.isIdentity() == spec.score.isIdentity();
}

TuningRecords TuningRecords::read(const std::string &path,
                                  const std::function<void(const std::string &)> &log) {
  namespace fs = std::filesystem;
  TuningRecords out;
  std::error_code error;
  if (path.empty() || path == "off" || !fs::exists(path, error))
    return out;
  std::vector<std::string> files;
  if (fs::is_directory(path, error)) {
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
      if (it->path().extension() == ".json")
        files.push_back(it->path().string());
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  if (int64_t(files.size()) > kMostTuningFiles) {
    log("tuning records " + path + ": " + std::to_string(files.size()) + " files; those after the first " +
        std::to_string(kMostTuningFiles) + " are left out");
    files.resize(size_t(kMostTuningFiles));
  }
  int64_t all = 0;
  for (const std::string &file : files) {
    const bool regular = fs::is_regular_file(file, error);
    const uintmax_t size = regular ? fs::file_size(file, error) : 0;
    if (!error && regular &&
        (size > uintmax_t(kMostTuningBytes) || all + int64_t(size) > kMostTuningBytesInAll)) {
      log("tuning record " + file + " is left out: it has " + std::to_string(size) + " bytes; at most " +
          std::to_string(kMostTuningBytes) + ", and " + std::to_string(kMostTuningBytesInAll) +
          " in all, are read");
      continue;
    }
    std::ifstream in;
    if (regular && !error) // to open a FIFO waits for a writer
      in.open(file, std::ios::binary);
    if (!in.is_open()) {
      log("tuning record " + file + " is left out: it can't be read or is no regular file");
      continue;
    }
    std::string text(size_t(size), '\0');
    in.read(text.data(), std::streamsize(size));
    text.resize(size_t(in.gcount()));
    all += int64_t(size);
    out.addText(text, file, log);
  }
  return out;
}

void TuningRecords::addText(std::string_view text, const std::string &name,
                            const std::function<void(const std::string &)> &log) {
  auto record = parseTuningRecord(text, name, TuningDetail::Best);
  if (!record)
    return log("tuning record " + record.status().message());
  constexpr size_t kMostTold = 8;
  for (size_t i = 0; i < std::min(record->ignored.size(), kMostTold); ++i)
    log("tuning record " + name + ": a cell is left out: " + record->ignored[i]);
  if (record->ignored.size() > kMostTold)
    log("tuning record " + name + ": " + std::to_string(record->ignored.size() - kMostTold) +
        " more cells are left out");
  add(std::move(*record));
}

std::vector<TunedSchedule> TuningRecords::find(const KernelSpec &spec, const std::string &model,
                                               const Target &target) const {
  std::vector<TunedSchedule> found;
  for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
    if (record->target != target || (!model.empty() && record->model != model))
      continue;
    for (const TuningCell &cell : record->cells)
      if (sameSpecClass(cell.spec, spec))
        found.push_back({cell.queries, cell.keys, cell.best, record->name});
  }
  return found;
}

} // namespace flashplus
