// SPDX-License-Identifier: BSD-3-Clause
// Writes the code of functions into a file that `perf inject --jit` turns into symbols. The format is version
// 1 of perf's jitdump (tools/perf/Documentation/jitdump-specification.txt of the Linux source).
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace flashplus {

/// FOLDER/jit-PID.dump. Thread-safe. The file stays when the process ends. After a fork the child has no file
/// and writes nothing: perf would take the parent's records for both.
class PerfDump {
public:
  /// The process's only dump (perf finds it by its process id): a second call with the same folder gives the
  /// same one. Makes the folder. InvalidArgument, naming the path, if the file cannot be made or another
  /// folder is in use.
  static Result<std::shared_ptr<PerfDump>> open(const std::string &folder);
  ~PerfDump();

  /// Adds one function of `size` bytes at `code`. After a failure (a full disk), which is reported once,
  /// nothing more is written.
  Status add(const std::string &name, const uint8_t *code, size_t size);

  const std::string &path() const { return path_; }
  PerfDump(const PerfDump &) = delete;
  PerfDump &operator=(const PerfDump &) = delete;

private:
  PerfDump() = default;
  std::string folder_, path_;
  std::mutex mutex_; ///< Only in the process that made it.
  int file_ = -1;
  int process_ = 0;
  void *mark_ = nullptr; ///< The mapping that perf records, for the file's name.
  size_t mark_size_ = 0;
  uint64_t next_index_ = 0;
};

} // namespace flashplus
