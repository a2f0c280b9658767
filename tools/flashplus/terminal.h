// SPDX-License-Identifier: BSD-3-Clause
// What the terminal is like: its width, and help that is wrapped to it.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// Columns of the terminal that `descriptor` is; 0 if it is none or does not say.
int terminalWidth(int descriptor);

/// Lines of at most `width` columns, broken at blanks; each after the first is indented by `indent`. A word
/// that is longer has a line of its own. Lines of `text` that begin with a blank are examples and stay whole.
std::string wrapped(const std::string &text, int width, int indent);

/// Help of the whole tree of `app` as wide as the terminal on stdout, 100 columns where there is none.
void formatHelp(CLI::App &app);

} // namespace flashplus::tool
