// SPDX-License-Identifier: BSD-3-Clause
// Ctrl-C: what is under way ends as a whole, says what it kept, and leaves no temporary file.
#pragma once

#include "spec/status.h"

namespace flashplus::tool {

/// From now on SIGINT, SIGTERM and SIGHUP end the process, which says what is kept and leaves no temporary of
/// a file that is being written; or, while an Interruptible lives, only make interrupted() true. The second
/// signal ends the process in any case.
void catchInterrupts();

/// What a signal that ends the process at once says of what is kept: a literal, or null for nothing.
void sayWhenEnded(const char *kept);

/// Around work that asks interrupted() between its steps.
class Interruptible {
public:
  Interruptible();
  ~Interruptible();
  Interruptible(const Interruptible &) = delete;
};

bool interrupted();
/// As a shell has it, 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Only once
/// interrupted().
int exitInterrupted();
/// Says on stderr that the work ended early and what of it is kept; exitInterrupted().
int endedEarly(const std::string &kept);

} // namespace flashplus::tool
