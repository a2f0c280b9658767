// SPDX-License-Identifier: BSD-3-Clause
#include "compiler/codegen/process.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <time.h>
#include <unistd.h>

extern char **environ;

namespace flashplus {
namespace {

constexpr int kLeastDescriptor = 10; // standard input and outputs may be closed, and are the child's own

std::string errorText(int error) { return std::generic_category().message(error); }

/// What a child did, as it crosses a pipe.
struct Report {
  int error = 0; ///< of starting it, or of waiting for it
  bool started = false;
  int status = 0;
  long peak_kib = 0;
  bool timed_out = false;
};

/// Whether a child has ended after so many seconds; it is still to be waited for.
bool endsWithin(pid_t child, int64_t seconds) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t end = now.tv_sec * 1000 + now.tv_nsec / 1'000'000 + seconds * 1000;
  const int fd = int(syscall(SYS_pidfd_open, child, 0)); // Linux 5.3; without it there is a look now and then
  bool ended = false;
  for (int64_t step = 1;; step = std::min<int64_t>(step * 2, 50)) {
    siginfo_t info{};
    if (waitid(P_PID, id_t(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ? errno != EINTR
                                                                            : info.si_pid != 0) {
      ended = true;
      break;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t left = end - (now.tv_sec * 1000 + now.tv_nsec / 1'000'000);
    if (left <= 0)
      break;
    pollfd gone{fd, POLLIN, 0};
    poll(&gone, fd < 0 ? 0 : 1, int(std::min<int64_t>(left, fd < 0 ? step : INT32_MAX)));
  }
  if (fd >= 0)
    close(fd);
  return ended;
}

/// Everything that starting a program takes; nothing is allocated between fork and exec.
class Launch {
public:
  Launch(const std::string &program, const std::vector<std::string> &arguments,
         const std::vector<const MemoryFile *> &files, int log, int64_t seconds)
      : program_(program), seconds_(seconds) {
    argv_.push_back(const_cast<char *>(program.c_str()));
    for (const std::string &argument : arguments)
      argv_.push_back(const_cast<char *>(argument.c_str()));
    argv_.push_back(nullptr);
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, log, 1);
    posix_spawn_file_actions_adddup2(&actions_, log, 2);
    for (const MemoryFile *file : files) // onto itself: then it is not closed by the exec
      posix_spawn_file_actions_adddup2(&actions_, file->fd(), file->fd());
    posix_spawnattr_init(&attributes_);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    sigaddset(&signals, SIGCHLD);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, short(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                 (seconds ? POSIX_SPAWN_SETPGROUP : 0)));
  }
  ~Launch() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  Launch(const Launch &) = delete;

  Report run() const {
    Report report;
    pid_t child = 0;
    report.error = posix_spawnp(&child, program_.c_str(), &actions_, &attributes_, argv_.data(), environ);
    if (report.error)
      return report;
    report.started = true;
    rusage usage{};
    if (seconds_ && !endsWithin(child, seconds_)) {
      report.timed_out = true;
      kill(-child, SIGKILL);
    }
    while (wait4(child, &report.status, 0, &usage) < 0)
      if (errno != EINTR) {
        report.error = errno;
        return report;
      }
    report.peak_kib = usage.ru_maxrss;
    return report;
  }

private:
  const std::string &program_;
  const int64_t seconds_;
  std::vector<char *> argv_;
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

/// Whether the kernel throws the exit status of every child away.
bool statusIsThrownAway() {
  struct sigaction now{};
  return sigaction(SIGCHLD, nullptr, &now) == 0 &&
         (now.sa_handler == SIG_IGN || (now.sa_flags & SA_NOCLDWAIT));
}

/// As launch.run(), from a process in between, whose children nobody else waits for.
Report runApart(const Launch &launch) {
  Report report;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    report.error = errno;
    return report;
  }
  const pid_t keeper = _Fork(); // runs nobody's fork handlers
  if (keeper == 0) {
    signal(SIGCHLD, SIG_DFL);
    report = launch.run();
    _exit(write(ends[1], &report, sizeof report) == sizeof report ? 0 : 1);
  }
  if (keeper < 0)
    report.error = errno;
  close(ends[1]);
  size_t got = 0;
  while (keeper > 0 && got < sizeof report) {
    const ssize_t count = read(ends[0], reinterpret_cast<char *>(&report) + got, sizeof report - got);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      break;
    got += size_t(count);
  }
  close(ends[0]);
  if (keeper > 0) {
    while (waitpid(keeper, nullptr, 0) < 0 && errno == EINTR) // it may have been waited for already
      continue;
    if (got < sizeof report)
      report = {.error = ECHILD, .started = true};
  }
  return report;
}

} // namespace

Result<MemoryFile> MemoryFile::make(const char *name) {
  const auto failed = [&](int error) {
    return Status(StatusCode::IoError,
                  std::string("no file in memory for ") + name + ": " + errorText(error));
  };
  const int first = memfd_create(name, MFD_CLOEXEC);
  if (first < 0)
    return failed(errno);
  const int fd = fcntl(first, F_DUPFD_CLOEXEC, kLeastDescriptor);
  const int error = errno;
  close(first);
  if (fd < 0)
    return failed(error);
  MemoryFile file(fd);
  if (access(file.path().c_str(), R_OK | W_OK) != 0)
    return Status(StatusCode::IoError,
                  file.path() + " cannot be used: " + errorText(errno) + "; is /proc mounted?");
  return file;
}

MemoryFile::~MemoryFile() {
  if (fd_ >= 0)
    close(fd_);
}

Status MemoryFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return {StatusCode::IoError, "a file in memory cannot be written: " + errorText(errno)};
    bytes.remove_prefix(size_t(count));
  }
  return Status::ok();
}

std::string MemoryFile::read() const {
  std::string bytes;
  char piece[16384];
  for (ssize_t count; (count = pread(fd_, piece, sizeof piece, off_t(bytes.size()))) > 0;)
    bytes.append(piece, size_t(count));
  return bytes;
}

bool ProgramRun::isMute() const {
  return !start_error && !timed_out &&
         (signal || (code != 0 && output.find_first_not_of(" \t\r\n") == std::string::npos));
}

std::string ProgramRun::ending() const {
  if (start_error)
    return "could not be started: " + errorText(start_error);
  if (timed_out)
    return "was still running after " + std::to_string(seconds) + " s and was ended";
  if (signal) {
    const char *name = sigabbrev_np(signal);
    return "was killed by signal " + std::to_string(signal) +
           (name ? std::string(" (SIG") + name + ")" : "") + " when it used " +
           std::to_string(peak_kib / 1024) + " MiB";
  }
  return "failed with code " + std::to_string(code) + (isMute() ? " and printed nothing" : "");
}

Result<ProgramRun> runProgram(const std::string &program, const std::vector<std::string> &arguments,
                              const std::vector<const MemoryFile *> &files, int64_t seconds) {
  for (bool apart : {statusIsThrownAway(), true}) {
    auto log = MemoryFile::make("output");
    if (!log)
      return log.status();
    const Launch launch(program, arguments, files, log->fd(), seconds);
    const Report report = apart ? runApart(launch) : launch.run();
    if (report.started && report.error == ECHILD && !apart)
      continue; // somebody else has waited for it: what it did is lost
    ProgramRun run;
    if (!report.started) {
      if (report.error == EAGAIN || report.error == ENOMEM || report.error == EMFILE ||
          report.error == ENFILE)
        return Status(StatusCode::IoError,
                      "'" + program + "' could not be started: " + errorText(report.error));
      run.start_error = report.error;
      return run;
    }
    if (report.error)
      return Status(StatusCode::IoError,
                    "how '" + program + "' ended is not known: " + errorText(report.error));
    run.output = log->read();
    run.peak_kib = report.peak_kib;
    run.timed_out = report.timed_out;
    run.seconds = seconds;
    if (WIFEXITED(report.status))
      run.code = WEXITSTATUS(report.status);
    else
      run.signal = WTERMSIG(report.status);
    return run;
  }
  return Status(StatusCode::Internal, "unreachable");
}

Result<ProgramRun> runProgramTwice(const std::string &program, const std::vector<std::string> &arguments,
                                   const std::vector<const MemoryFile *> &files, int64_t seconds) {
  auto run = runProgram(program, arguments, files, seconds);
  if (run && run->isMute()) {
    for (const MemoryFile *file : files)
      lseek(file->fd(), 0, SEEK_SET);
    run = runProgram(program, arguments, files, seconds);
  }
  return run;
}

} // namespace flashplus
