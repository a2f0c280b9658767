// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/choice.h"

#include "tools/flashplus/near.h"

#include <algorithm>
#include <map>

namespace flashplus::tool {

namespace {

std::string listed(const std::vector<std::string> &words) {
  std::string text;
  for (const std::string &word : words)
    text += (word == words.front() ? "" : word == words.back() ? " and " : ", ") + word;
  return text;
}

/// `also`: other names of words.
CLI::Validator choice(std::vector<std::string> words, std::map<std::string, std::string> also) {
  std::string shown;
  for (const std::string &word : words)
    shown += (shown.empty() ? "{" : ",") + word;
  return CLI::Validator(
      [words = std::move(words), also = std::move(also)](std::string &text) -> std::string {
        if (const auto other = also.find(text); other != also.end())
          text = other->second;
        if (std::ranges::find(words, text) != words.end())
          return "";
        return "'" + text + "' is not known; allowed " + (words.size() == 1 ? "is " : "are ") +
               listed(words) + didYouMean(text, words);
      },
      shown + "}");
}

} // namespace

CLI::Validator oneOf(std::vector<std::string> words) { return choice(std::move(words), {}); }

CLI::Validator dtypeNames(std::vector<std::string> more) {
  std::vector<std::string> words = {"fp16", "bf16", "fp32"};
  words.insert(words.begin(), more.begin(), more.end());
  return choice(
      std::move(words),
      {{"float16", "fp16"}, {"half", "fp16"}, {"bfloat16", "bf16"}, {"float32", "fp32"}, {"float", "fp32"}});
}

} // namespace flashplus::tool
