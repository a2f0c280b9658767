// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/progress.h"

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
  constexpr int64_t kWidth = 30;
  std::string bar(static_cast<size_t>(done_ * kWidth / total_), '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %lld/%lld %s", what_.c_str(), bar.c_str(),
               static_cast<long long>(done_), static_cast<long long>(total_), tail.c_str());
}

} // namespace flashplus::tool
