// SPDX-License-Identifier: BSD-3-Clause
// A write beyond the process's limit (ulimit -f), or to a pipe that nobody reads, raises a signal that ends
// the process, where a library wants the error.
#pragma once

#include <csignal>
#include <ctime>

#include <pthread.h>

namespace flashplus {

/// Keeps `signal` off this thread for a scope, and takes back what the scope raised. One that was pending
/// before stays.
class HeldSignal {
public:
  explicit HeldSignal(int signal) : signal_(signal) {
    sigemptyset(&mine_);
    sigaddset(&mine_, signal);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, signal) == 1;
    pthread_sigmask(SIG_BLOCK, &mine_, &before_);
  }
  ~HeldSignal() {
    sigset_t pending;
    sigpending(&pending);
    const timespec at_once{0, 0};
    if (!was_pending_ && sigismember(&pending, signal_) == 1)
      (void)sigtimedwait(&mine_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  HeldSignal(const HeldSignal &) = delete;
  HeldSignal &operator=(const HeldSignal &) = delete;

private:
  const int signal_;
  sigset_t mine_, before_;
  bool was_pending_ = false;
};

} // namespace flashplus
