// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/near.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace flashplus::tool {

namespace {

std::string plain(std::string_view word) {
  std::string out;
  for (char c : word)
    if (std::isalnum(static_cast<unsigned char>(c)))
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// Letters to insert, drop, change or swap with their neighbour.
size_t distance(const std::string &a, const std::string &b) {
  std::vector<size_t> before, last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before[j - 2] + 1);
    }
    before = last;
    std::swap(last, now);
  }
  return last[b.size()];
}

} // namespace

std::vector<std::string> nearNames(std::string_view word, const std::vector<std::string> &names) {
  const std::string wanted = plain(word);
  if (wanted.size() < 2) // one letter is near every other
    return {};
  const size_t most = wanted.size() <= 4 ? 1 : wanted.size() <= 8 ? 2 : 3;
  std::vector<std::pair<size_t, std::string>> found;
  for (const std::string &name : names) {
    const std::string other = plain(name);
    size_t far = distance(wanted, other);
    // A beginning that somebody typed and did not end.
    if (far > most && wanted.size() >= 3 && other.starts_with(wanted))
      far = most;
    // A name with something behind it: --input, --window-size.
    if (far > most && other.size() >= 2 && wanted.starts_with(other) &&
        std::isalpha(static_cast<unsigned char>(wanted[other.size()])))
      far = most;
    if (far <= most && !other.empty())
      found.emplace_back(far, name);
  }
  std::sort(found.begin(), found.end()); // the nearest first, then by name
  std::vector<std::string> out;
  for (const auto &[far, name] : found)
    if (out.size() < 3 && std::ranges::find(out, name) == out.end() &&
        far <= (found.front().first ? found.front().first + 1 : 0))
      out.push_back(name);
  return out;
}

std::string didYouMean(std::string_view word, const std::vector<std::string> &names) {
  const std::vector<std::string> near = nearNames(word, names);
  std::string text;
  for (size_t i = 0; i < near.size(); ++i)
    text += (i == 0 ? "; did you mean " : i + 1 == near.size() ? " or " : ", ") + near[i];
  return text.empty() ? "" : text + "?";
}

} // namespace flashplus::tool
