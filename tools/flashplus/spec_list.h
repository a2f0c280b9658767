// SPDX-License-Identifier: BSD-3-Clause
// Specs that somebody names one by one: --spec, and the files of --specs.
#pragma once

#include "spec/status.h"

#include <string>
#include <vector>

namespace flashplus::tool {

/// One that is to be warmed. Canonical texts; schedule and target are "" where only the spec was said.
struct NamedSpec {
  std::string spec, schedule, target;
  bool operator==(const NamedSpec &) const = default;
};

/// A spec's text. InvalidArgument names `where`.
Result<NamedSpec> readSpec(const std::string &where, const std::string &text);

/// The lines of a file: a spec, or with tabs between a spec, a schedule and a target, as
/// $FLASHPLUS_RECORD_MISSES writes them; each once. Empty lines and those that begin with # are left out.
/// Failures name file and line.
Result<std::vector<NamedSpec>> readSpecFile(const std::string &path);

} // namespace flashplus::tool
