// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/interrupt.h"

#include "tools/io/file.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <unistd.h>

namespace flashplus::tool {

namespace {

std::atomic<int> caught{0}, asking{0};
static_assert(std::atomic<int>::is_always_lock_free); // a signal's handler may use it

void handle(int signal) {
  const int before = errno; // of whatever was interrupted
  if (asking.load() > 0 && caught.exchange(signal) == 0) {
    static constexpr char kSaid[] = "\nflashplus: ending after this step; once more ends it at once\n";
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, kSaid, sizeof kSaid - 1);
    errno = before;
    return;
  }
  io::removeUnfinished();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

} // namespace

void catchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM}) {
    struct sigaction before = {};
    // Who starts us with a signal ignored (nohup, a shell's `&`) keeps it so.
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      ::sigaction(signal, &action, nullptr);
  }
}

Interruptible::Interruptible() { asking.fetch_add(1); }
Interruptible::~Interruptible() { asking.fetch_sub(1); }

bool interrupted() { return caught.load() != 0; }

int exitInterrupted() { return 128 + caught.load(); }

int endedEarly(const std::string &kept) {
  std::fprintf(stderr, "flashplus: interrupted; %s\n", kept.c_str());
  return exitInterrupted();
}

} // namespace flashplus::tool
