// SPDX-License-Identifier: BSD-3-Clause
// Progress on stderr: a bar with the time left on a terminal, otherwise a line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace flashplus::tool {

/// Thread-safe.
class Progress {
public:
  Progress(std::string what, int64_t total);
  ~Progress(); ///< Ends the bar's line.
  void step();

private:
  void show(bool last);
  std::mutex mutex_;
  std::string what_;
  int64_t total_, done_ = 0;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

/// Before work that takes minutes: says on stderr how long. Nothing below one.
void sayEstimate(const std::string &what, double seconds);

/// "1:05", "2:03:00"
std::string durationText(double seconds);

} // namespace flashplus::tool
