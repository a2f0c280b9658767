// SPDX-License-Identifier: BSD-3-Clause
// $FLASHPLUS_LOG: what a context says, as lines of text for whoever runs the process, whether or not the
// program that embeds the library takes its log.
#pragma once

#include "flashplus/flashplus.h"
#include "spec/status.h"

#include <memory>
#include <string>
#include <string_view>

namespace flashplus {

/// Thread-safe; several processes may share one file: a line is one write at its end. A line that cannot be
/// written is lost, and nothing else happens.
///
///   2026-11-30T19:18:09.123Z flashplus[4711] info: compiled 'forward ...' with '...' for sm_80@sm_90 in 85
///   ms
class LogLines {
public:
  enum class Level { Off, Warn, Info };

  /// `setting` is "", "off", "warn" or "info"; behind the last two there may be ":FILE", which is appended to
  /// and made with mode 0600, instead of standard error. InvalidArgument, with what is allowed, for another
  /// one, or a file that cannot be written.
  static Result<std::unique_ptr<LogLines>> open(const std::string &setting);
  ~LogLines();

  bool takes(Level level) const { return level <= level_; }
  void write(Level level, std::string_view text) const;

  LogLines(const LogLines &) = delete;
  LogLines &operator=(const LogLines &) = delete;

private:
  LogLines(Level level, int fd) : level_(level), fd_(fd) {}
  const Level level_;
  const int fd_; ///< Closed with it unless it is standard error's.
};

/// One line about what happened to a kernel.
std::string eventText(const flashplus_event &event);

} // namespace flashplus
