// SPDX-License-Identifier: BSD-3-Clause
#include "cache/usage_counts.h"

#include "cache/hash.h"

#include <charconv>
#include <limits>

namespace flashplus {
namespace {

constexpr size_t kDigits = 19; ///< Of the largest value.
constexpr std::string_view kHeader = "flashplus-counts 1\n", kChecksum = "checksum ";

void appendLine(std::string &out, std::string_view name, int64_t value) {
  out += name;
  out += ' ';
  const std::string digits = std::to_string(value);
  out.append(kDigits - digits.size(), '0');
  out += digits;
  out += '\n';
}

/// Takes "NAME value\n" from the front of `rest`.
bool takeLine(std::string_view &rest, std::string_view name, int64_t &value) {
  if (!rest.starts_with(name) || rest.substr(name.size(), 1) != " ")
    return false;
  rest.remove_prefix(name.size() + 1);
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc() || value < 0)
    return false;
  rest.remove_prefix(static_cast<size_t>(stop - rest.data()));
  if (!rest.starts_with('\n'))
    return false;
  rest.remove_prefix(1);
  return true;
}

int64_t sum(int64_t a, int64_t b) {
  return b > std::numeric_limits<int64_t>::max() - a ? std::numeric_limits<int64_t>::max() : a + b;
}

} // namespace

void UsageCounts::add(const UsageCounts &other) {
#define FLASHPLUS_ADD(NAME) NAME = sum(NAME, other.NAME);
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_ADD)
#undef FLASHPLUS_ADD
}

UsageCounts UsageCounts::minus(const UsageCounts &other) const {
  UsageCounts out;
#define FLASHPLUS_MINUS(NAME) out.NAME = NAME > other.NAME ? NAME - other.NAME : 0;
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_MINUS)
#undef FLASHPLUS_MINUS
  return out;
}

bool UsageCounts::isNothing() const {
  UsageCounts other = *this;
  other.since = 0;
  return other == UsageCounts();
}

std::string UsageCounts::text() const {
  std::string out(kHeader);
  appendLine(out, "since", since);
#define FLASHPLUS_LINE(NAME) appendLine(out, #NAME, NAME);
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_LINE)
#undef FLASHPLUS_LINE
  const std::string checksum = hashText(out).hex();
  return out + std::string(kChecksum) + checksum + "\n";
}

std::optional<UsageCounts> UsageCounts::parse(std::string_view text) {
  if (!text.starts_with(kHeader))
    return std::nullopt;
  std::string_view rest = text.substr(kHeader.size());
  UsageCounts counts;
  if (!takeLine(rest, "since", counts.since))
    return std::nullopt;
#define FLASHPLUS_TAKE(NAME)                                                                                 \
  if (!takeLine(rest, #NAME, counts.NAME))                                                                   \
    return std::nullopt;
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_TAKE)
#undef FLASHPLUS_TAKE
  return counts.text() == text ? std::optional(counts) : std::nullopt;
}

} // namespace flashplus
