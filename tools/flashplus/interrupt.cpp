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
std::atomic<const char *> kept_at_end{nullptr};
static_assert(std::atomic<int>::is_always_lock_free && // a signal's handler may use them
              std::atomic<const char *>::is_always_lock_free);

void say(const char *text) {
  size_t length = 0;
  while (text[length])
    ++length;
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text, length);
}

void handle(int signal) {
  const int before = errno; // of whatever was interrupted
  if (asking.load() > 0 && caught.exchange(signal) == 0) {
    say("\nflashplus: ending after this step; once more ends it at once\n");
    errno = before;
    return;
  }
  io::removeUnfinished();
  const char *kept = asking.load() > 0 ? "what was measured is not kept; kernels that were compiled are"
                                       : kept_at_end.load();
  say("\nflashplus: interrupted");
  if (kept) {
    say("; ");
    say(kept);
  }
  say("\n");
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

} // namespace

void catchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before = {};
    // Who starts us with a signal ignored (nohup, a shell's `&`) keeps it so.
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      ::sigaction(signal, &action, nullptr);
  }
}

void sayWhenEnded(const char *kept) { kept_at_end.store(kept); }

Interruptible::Interruptible() { asking.fetch_add(1); }
Interruptible::~Interruptible() { asking.fetch_sub(1); }

bool interrupted() { return caught.load() != 0; }

int exitInterrupted() { return 128 + caught.load(); }

int endedEarly(const std::string &kept) {
  std::fprintf(stderr, "flashplus: interrupted; %s\n", kept.c_str());
  return exitInterrupted();
}

} // namespace flashplus::tool
