// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/durations.h"

#include <charconv>
#include <ctime>
#include <optional>
#include <utility>

namespace flashplus::tool {

namespace {

/// The number at the start of `text`, and what follows it; nothing if there is none, or it is negative.
std::optional<std::pair<int64_t, std::string>> numberAndUnit(const std::string &text) {
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0)
    return std::nullopt;
  return std::pair(value, std::string(stop, text.data() + text.size()));
}

} // namespace

Result<int64_t> parseAge(const std::string &flag, const std::string &text) {
  if (const auto number = numberAndUnit(text))
    for (const auto &[unit, seconds] :
         {std::pair("s", 1), {"m", 60}, {"h", 3600}, {"d", 86'400}, {"w", 7 * 86'400}})
      if (number->second == unit && number->first <= INT64_C(1'000'000'000))
        return number->first * seconds;
  return invalidArgument(flag + " is '" + text +
                         "'; it must be a number with s, m, h, d or w after it, such as 30d");
}

Result<int64_t> parseSince(const std::string &flag, const std::string &text, int64_t now) {
  int year = 0, month = 0, day = 0;
  char after = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%c", &year, &month, &day, &after) == 3) {
    std::tm parts = {};
    parts.tm_year = year - 1900;
    parts.tm_mon = month - 1;
    parts.tm_mday = day;
    parts.tm_isdst = -1;
    std::tm normal = parts;
    const std::time_t time = std::mktime(&normal);
    if (time != -1 && normal.tm_mon == parts.tm_mon && normal.tm_mday == parts.tm_mday)
      return static_cast<int64_t>(time);
  }
  if (auto age = parseAge(flag, text))
    return now - *age;
  return invalidArgument(flag + " is '" + text +
                         "'; it must be an age, such as 12h or 30d, or a day, such as 2026-11-30");
}

Result<int64_t> parseBytes(const std::string &flag, const std::string &text) {
  if (const auto number = numberAndUnit(text))
    for (const auto &[unit, shift] : {std::pair("", 0), {"K", 10}, {"M", 20}, {"G", 30}})
      if (number->second == unit && number->first <= INT64_MAX >> shift)
        return number->first << shift;
  return invalidArgument(flag + " is '" + text +
                         "'; it must be a number of bytes, or one with K, M or G after it");
}

} // namespace flashplus::tool
