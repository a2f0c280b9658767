// SPDX-License-Identifier: BSD-3-Clause
#include "spec/schedule.h"

#include <charconv>

namespace flashplus {
namespace {

bool isName(std::string_view text) {
  if (text.empty() || text.size() > 64)
    return false;
  for (char c : text)
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '.')
      return false;
  return true;
}

Status bad(std::string_view text, std::string_view why) {
  return invalidArgument("schedule '" + std::string(text) + "' does not parse: " + std::string(why) +
                         " (expected 'algorithm name=integer ...')");
}

} // namespace

int Schedule::get(std::string_view name) const {
  const auto it = knobs.find(name);
  return it == knobs.end() ? 0 : it->second;
}

std::string Schedule::text() const {
  std::string text = algorithm;
  for (const auto &[name, value] : knobs)
    text += " " + name + "=" + std::to_string(value);
  return text;
}

Result<Schedule> Schedule::parse(std::string_view text) {
  Schedule schedule;
  std::string_view rest = text;
  for (bool first = true; first || !rest.empty(); first = false) {
    const size_t space = rest.find(' ');
    const std::string_view word = rest.substr(0, space);
    rest = space == std::string_view::npos ? std::string_view{} : rest.substr(space + 1);
    if (first) {
      if (!isName(word))
        return bad(text, "the algorithm is not a name");
      schedule.algorithm = word;
      continue;
    }
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos || !isName(word.substr(0, equals)))
      return bad(text, "'" + std::string(word) + "' is not name=integer");
    int value = 0;
    const char *end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + equals + 1, end, value);
    if (error != std::errc() || stop != end)
      return bad(text, "'" + std::string(word) + "' is not name=integer");
    if (!schedule.knobs.emplace(word.substr(0, equals), value).second)
      return bad(text, "'" + std::string(word.substr(0, equals)) + "' appears twice");
  }
  return schedule;
}

} // namespace flashplus
