// SPDX-License-Identifier: BSD-3-Clause
// Runs a program and waits for it, in a process whose signal handling is somebody else's.
#pragma once

#include "spec/status.h"

#include <string>
#include <vector>

namespace flashplus {

/// A file in memory that a child process can open by name. Needs no temporary folder, and nobody else can
/// reach it.
class MemoryFile {
public:
  /// IoError if there is no descriptor or memory left, or no /proc.
  static Result<MemoryFile> make(const char *name);
  MemoryFile(MemoryFile &&other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ~MemoryFile();

  int fd() const { return fd_; }
  /// Its name in a child that runProgram() passes it to.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  Status write(std::string_view bytes);
  std::string read() const;

private:
  explicit MemoryFile(int fd) : fd_(fd) {}
  int fd_;
};

struct ProgramRun {
  int start_error = 0; ///< An errno value: it did not start.
  int code = -1;       ///< Exit status, if it ended by itself.
  int signal = 0;      ///< The signal that ended it.
  int64_t seconds = 0; ///< That it was given.
  bool timed_out = false; ///< It was ended, with all that it had started.
  long peak_kib = 0;   ///< The most memory that it had.
  std::string output;  ///< Of both its outputs.

  bool isGood() const { return !start_error && !signal && code == 0; }
  /// Whether it failed without saying why: killed (out of memory, say), or a status and no text. Nothing
  /// about the input can be concluded from that.
  bool isMute() const;
  /// "could not be started: ...", "was killed by signal 9 (Killed) when it used 12 MiB", "failed with code
  /// 1".
  std::string ending() const;
};

/// Runs `program` (searched in $PATH when it has no slash), which gets `files` besides its arguments. Right
/// whatever the process does about SIGCHLD: where it is ignored, or somebody else waits for every child, the
/// exit status would be lost, so a process in between waits. IoError if the status is not to be had. With
/// `seconds` it is a process group of its own, which is ended after so many.
Result<ProgramRun> runProgram(const std::string &program, const std::vector<std::string> &arguments,
                              const std::vector<const MemoryFile *> &files, int64_t seconds = 0);

/// The same, and once more if the first run was mute.
Result<ProgramRun> runProgramTwice(const std::string &program, const std::vector<std::string> &arguments,
                                   const std::vector<const MemoryFile *> &files, int64_t seconds = 0);

} // namespace flashplus
