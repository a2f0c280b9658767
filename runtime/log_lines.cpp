// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/log_lines.h"

#include "cache/held_signal.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <time.h>
#include <unistd.h>

namespace flashplus {
namespace {

std::string milliseconds(double ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", ms);
  return text;
}

} // namespace

Result<std::unique_ptr<LogLines>> LogLines::open(const std::string &setting) {
  const size_t colon = setting.find(':');
  const std::string word = setting.substr(0, colon),
                    file = colon == std::string::npos ? "" : setting.substr(colon + 1);
  const Level level = word == "info" ? Level::Info : word == "warn" ? Level::Warn : Level::Off;
  const bool is_off = setting.empty() || setting == "off";
  if (level == Level::Off ? !is_off : colon != std::string::npos && file.empty())
    return invalidArgument("$FLASHPLUS_LOG is '" + setting +
                           "'; it must be off, warn or info, or warn:FILE or info:FILE");
  int fd = STDERR_FILENO;
  if (!file.empty()) {
    // O_NONBLOCK: to open a FIFO must not wait for a reader
    fd = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    struct stat info {};
    std::string problem;
    if (fd < 0 || ::fstat(fd, &info) != 0)
      problem = std::generic_category().message(errno);
    else if (!S_ISREG(info.st_mode) && !S_ISCHR(info.st_mode)) // one that nobody reads would end the process
      problem = "it is a pipe or a socket";
    if (!problem.empty()) {
      if (fd >= 0)
        ::close(fd);
      return invalidArgument("$FLASHPLUS_LOG is '" + setting +
                             "', and the file cannot be written: " + problem);
    }
  }
  return std::unique_ptr<LogLines>(new LogLines(level, fd));
}

LogLines::~LogLines() {
  if (fd_ != STDERR_FILENO)
    ::close(fd_);
}

void LogLines::write(Level level, std::string_view text) const {
  if (level == Level::Off || !takes(level))
    return;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  char time[64], head[128];
  ::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(head, sizeof head, "%s.%03dZ flashplus[%d] %s: ", time, int(now.tv_nsec / 1'000'000),
                int(::getpid()), level == Level::Info ? "info" : "warn");
  std::string line = head + std::string(text);
  std::ranges::replace(line, '\n', ' '); // one line, whatever an error of the system's has in it
  line += '\n';
  const int error = errno;
  {
    const HeldSignal beyond_the_limit(SIGXFSZ), nobody_reads(SIGPIPE);
    (void)!::write(fd_, line.data(), line.size());
  }
  errno = error;
}

std::string eventText(const flashplus_event &e) {
  const std::string kernel =
      "'" + std::string(e.spec) + "' with '" + e.schedule + "' for " + std::string(e.target);
  const auto because = [&] { return *e.detail ? ": " + std::string(e.detail) : ""; };
  switch (e.kind) {
  case FLASHPLUS_EVENT_DISK_HIT:
    return "read " + kernel + " in " + milliseconds(e.ms) + ", entry " + e.key;
  case FLASHPLUS_EVENT_COMPILED:
    return "compiled " + kernel + " in " + milliseconds(e.ms) + " (build " + milliseconds(e.build_ms) +
           ", passes " + milliseconds(e.passes_ms) + ", optimize " + milliseconds(e.optimize_ms) + ", emit " +
           milliseconds(e.emit_ms) + ", assemble " + milliseconds(e.assemble_ms) + "), " +
           std::to_string(e.code_bytes) + " bytes, entry " + e.key;
  case FLASHPLUS_EVENT_COMPILE_FAILED:
    return "could not compile " + kernel + because();
  case FLASHPLUS_EVENT_DAMAGED:
    return "found the entry of " + kernel + " damaged" + because();
  case FLASHPLUS_EVENT_REFUSED:
    return "could not use the entry of " + kernel + because();
  case FLASHPLUS_EVENT_PUBLISH_FAILED:
    return "could not write the entry of " + kernel + because();
  case FLASHPLUS_EVENT_COMPILE_STARTED:
    return "compiles " + kernel;
  case FLASHPLUS_EVENT_COMPILING:
    return "still compiles " + kernel + ", for " + milliseconds(e.ms) + " now";
  case FLASHPLUS_EVENT_FALLBACK:
    return "left out " + kernel + because();
  default:
    return "event " + std::to_string(int(e.kind)) + " of " + kernel + because();
  }
}

} // namespace flashplus
