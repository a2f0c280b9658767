// SPDX-License-Identifier: BSD-3-Clause
// What is said to somebody who typed what no verb takes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace flashplus::tool {

/// `help cache ls` as `cache ls --help`; other words as they are. Names that are no verb stay without --help,
/// so that they are refused.
std::vector<std::string> withHelpLast(const CLI::App &app, std::vector<std::string> words);

/// What was wrong with `words`, in the order in which they were typed, and where to read on. A word that is
/// no verb, and a flag that the verb does not have, are named with those that may have been meant.
std::string usageMessage(const CLI::App &app, const CLI::ParseError &error,
                         const std::vector<std::string> &words);

} // namespace flashplus::tool
