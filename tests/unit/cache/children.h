// SPDX-License-Identifier: BSD-3-Clause
// Child processes of tests.
#pragma once

#include <chrono>
#include <csignal>
#include <functional>

#include <sys/wait.h>
#include <unistd.h>

namespace flashplus::test {

/// Runs `body` in a child, whose exit status it returns; a child never comes back into the test framework.
inline pid_t startChild(const std::function<int()> &body) {
  const pid_t child = ::fork();
  if (child == 0)
    ::_exit(body());
  return child;
}

inline int waitFor(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

/// As waitFor(); a child that hangs is killed, and -1 is returned.
inline int waitAtMost(pid_t child, std::chrono::milliseconds most) {
  const auto end = std::chrono::steady_clock::now() + most;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return -1;
    }
    ::usleep(1000);
  }
  return status;
}

} // namespace flashplus::test
