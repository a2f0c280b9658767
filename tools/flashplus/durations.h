// SPDX-License-Identifier: BSD-3-Clause
// Points of time and sizes as flags have them.
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <string>

namespace flashplus::tool {

/// "90m", "12h", "30d", "2w": seconds. InvalidArgument names `flag`, the text and what is allowed.
Result<int64_t> parseAge(const std::string &flag, const std::string &text);
/// An age, counted back from `now`, or a day ("2026-11-30", at its start, local time): seconds since 1970.
Result<int64_t> parseSince(const std::string &flag, const std::string &text, int64_t now);
/// "500M", "2G", "0": bytes, as $FLASHPLUS_CACHE_SIZE.
Result<int64_t> parseBytes(const std::string &flag, const std::string &text);

} // namespace flashplus::tool
