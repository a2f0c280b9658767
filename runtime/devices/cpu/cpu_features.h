// SPDX-License-Identifier: BSD-3-Clause
// What the host processor is and runs, by cpuid. Thread-safe.
#pragma once

#include "spec/status.h"
#include "spec/target.h"

namespace flashplus {

/// The best CPU target that this processor and its operating system run, or NoDevice that says what is
/// missing.
Result<Target> hostTarget();
/// The processor's own name for itself, or "unknown processor".
std::string processorModel();

/// Whether a processor whose best CPU target is `host` runs code for the CPU target `wanted`. Both must be
/// CPU targets: each runs the code of those before it.
bool includes(const Target &host, const Target &wanted);

} // namespace flashplus
