// SPDX-License-Identifier: BSD-3-Clause
#include "cache/key.h"

#include <optional>

namespace flashplus {
namespace {

constexpr std::string_view kKeyHeader = "flashplus-key 3\n";

void appendField(std::string &out, std::string_view name, std::string_view value) {
  if (value.empty())
    return;
  out += name;
  out += ": ";
  for (char c : value) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  out += '\n';
}

std::optional<std::string> unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    if (++i == text.size() || (text[i] != '\\' && text[i] != 'n'))
      return std::nullopt;
    out += text[i] == 'n' ? '\n' : '\\';
  }
  return out;
}

/// Takes the line "NAME: value\n" from the front of `rest`; leaves both as they are when it is not there.
bool takeField(std::string_view &rest, std::string_view name, std::string &value) {
  if (rest.substr(0, name.size()) != name || rest.substr(name.size(), 2) != ": ")
    return true;
  const size_t begin = name.size() + 2;
  const size_t end = rest.find('\n', begin);
  if (end == std::string_view::npos || end == begin)
    return false;
  std::optional<std::string> unescaped = unescape(rest.substr(begin, end - begin));
  if (!unescaped)
    return false;
  value = std::move(*unescaped);
  rest.remove_prefix(end + 1);
  return true;
}

} // namespace

std::string KernelKey::text() const {
  std::string out(kKeyHeader);
#define FLASHPLUS_KEY_APPEND(NAME) appendField(out, #NAME, NAME);
  FLASHPLUS_KEY_FIELDS(FLASHPLUS_KEY_APPEND)
#undef FLASHPLUS_KEY_APPEND
  return out;
}

Result<KernelKey> KernelKey::parse(std::string_view text) {
  if (text.substr(0, kKeyHeader.size()) != kKeyHeader)
    return invalidArgument("kernel key: the first line is not \"flashplus-key 3\"");
  std::string_view rest = text.substr(kKeyHeader.size());
  KernelKey key;
#define FLASHPLUS_KEY_TAKE(NAME)                                                                             \
  if (!takeField(rest, #NAME, key.NAME))                                                                     \
    return invalidArgument("kernel key: the line of '" #NAME "' is malformed");
  FLASHPLUS_KEY_FIELDS(FLASHPLUS_KEY_TAKE)
#undef FLASHPLUS_KEY_TAKE
  if (!rest.empty())
    return invalidArgument("kernel key: unexpected text after its last field");
  return key;
}

} // namespace flashplus
