// SPDX-License-Identifier: BSD-3-Clause
// Ctrl-C: what is under way ends as a whole, says what it kept, and leaves no temporary file.
#pragma once

#include "spec/status.h"

namespace flashplus::tool {

/// From now on SIGINT and SIGTERM end the process, without the temporary of a file that is being written; or,
/// while an Interruptible lives, only make interrupted() true. The second signal ends the process in any
/// case.
void catchInterrupts();

/// Around work that asks interrupted() between its steps.
class Interruptible {
public:
  Interruptible();
  ~Interruptible();
  Interruptible(const Interruptible &) = delete;
};

bool interrupted();
/// As a shell has it, 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM. Only once interrupted().
int exitInterrupted();
/// Says on stderr that the work ended early and what of it is kept; exitInterrupted().
int endedEarly(const std::string &kept);

} // namespace flashplus::tool
