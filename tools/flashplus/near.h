// SPDX-License-Identifier: BSD-3-Clause
// "Did you mean": the names that a mistyped word may stand for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flashplus::tool {

/// Those of `names` that are near `word`, the nearest first, at most three: a letter or two off, letters
/// swapped, or the same but for dashes, underscores and case. Empty where none is.
std::vector<std::string> nearNames(std::string_view word, const std::vector<std::string> &names);

/// "; did you mean --head-dim?", "; did you mean a, b or c?", or "" for none.
std::string didYouMean(std::string_view word, const std::vector<std::string> &names);

} // namespace flashplus::tool
