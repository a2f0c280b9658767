// SPDX-License-Identifier: BSD-3-Clause
// A file of the kernels that were in no cache, for `flashplus warmup --specs`.
#pragma once

#include "spec/status.h"

#include <atomic>
#include <memory>
#include <string>

namespace flashplus {

/// Thread-safe, and any number of processes may write to one file: a line is one write at its end.
class MissRecord {
public:
  /// InvalidArgument, naming the path, if it cannot be written.
  static Result<std::unique_ptr<MissRecord>> open(const std::string &path);
  ~MissRecord();

  /// "spec TAB schedule TAB target". The first failure is returned, later ones are not.
  Status add(const std::string &spec, const std::string &schedule, const std::string &target);

  MissRecord(const MissRecord &) = delete;
  MissRecord &operator=(const MissRecord &) = delete;

private:
  MissRecord(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
  std::atomic<bool> failed_{false}, cut_{false};
};

} // namespace flashplus
