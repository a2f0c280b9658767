// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/progress.h"

#include "tools/flashplus/terminal.h"

#include <algorithm>
#include <cstdio>
#include <unistd.h>

namespace flashplus::tool {

std::string durationText(double seconds) {
  auto whole = static_cast<long>(seconds + 0.5);
  char buffer[64];
  if (whole >= 3600)
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    std::snprintf(buffer, sizeof buffer, "%ld:%02ld", whole / 60, whole % 60);
  return buffer;
}

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)), total_(total), terminal_(::isatty(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()), last_(start_) {}

Progress::~Progress() {
  if (terminal_ && shown_)
    std::fputc('\n', stderr);
}

void Progress::step() {
  std::lock_guard lock(mutex_);
  ++done_;
  auto now = std::chrono::steady_clock::now();
  bool last = done_ == total_;
  double pause = terminal_ ? 0.1 : 10; // seconds between updates
  if (!last && std::chrono::duration<double>(now - last_).count() < pause)
    return;
  last_ = now;
  show(last);
}

void Progress::show(bool last) {
  shown_ = true;
  double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  double left = elapsed / static_cast<double>(done_) * static_cast<double>(total_ - done_);
  std::string tail = last ? "in " + durationText(elapsed) : "ETA " + durationText(left);
  if (!terminal_) {
    std::fprintf(stderr, "%s: %lld of %lld, %s\n", what_.c_str(), static_cast<long long>(done_),
                 static_cast<long long>(total_), tail.c_str());
    return;
  }
  // One column stays free: a terminal whose last one is written goes to the next line, and each update would.
  const int columns = terminalWidth(STDERR_FILENO);
  const size_t room = columns > 1 ? static_cast<size_t>(columns - 1) : 79;
  std::string line = " " + std::to_string(done_) + "/" + std::to_string(total_) + " " + tail;
  constexpr size_t kBar = 30, kLeastBar = 5;
  if (const size_t used = what_.size() + 3 + line.size(); used + kLeastBar <= room) {
    const size_t width = std::min(kBar, room - used);
    std::string bar(static_cast<size_t>(done_) * width / static_cast<size_t>(total_), '#');
    bar.resize(width, '.');
    line = " [" + bar + "]" + line;
  }
  line = (what_ + line).substr(0, room);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
}

void sayEstimate(const std::string &what, double seconds) {
  if (seconds >= 60)
    std::fprintf(stderr, "flashplus: %s: about %s; Ctrl-C ends it and keeps what is there\n", what.c_str(),
                 durationText(seconds).c_str());
}

} // namespace flashplus::tool
