// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/usage.h"

#include "tools/flashplus/near.h"

#include <algorithm>
#include <cctype>

namespace flashplus::tool {

namespace {

std::vector<const CLI::App *> verbsOf(const CLI::App &app) {
  return app.get_subcommands([](const CLI::App *) { return true; });
}

const CLI::App *verbNamed(const CLI::App &app, const std::string &name) {
  for (const CLI::App *verb : verbsOf(app))
    if (verb->get_name() == name)
      return verb;
  return nullptr;
}

std::vector<std::string> flagsOf(const CLI::App &verb) {
  std::vector<std::string> names;
  for (const CLI::Option *option : verb.get_options())
    for (const std::string &name : option->get_lnames())
      names.push_back("--" + name);
  return names;
}

bool hasLetter(const std::string &word) {
  return std::ranges::any_of(word, [](unsigned char c) { return std::isalpha(c) != 0; });
}

/// A word that looks like a flag; numbers below zero do not.
bool isFlag(const std::string &word) { return word.starts_with('-') && hasLetter(word); }

/// "; --head-dim is a flag of warmup and bench", where `verb` has nothing that is near; "" if no verb has.
std::string elsewhere(const CLI::App &app, const CLI::App &verb, const std::string &flag) {
  std::vector<std::string> all;
  for (const CLI::App *other : verbsOf(app)) {
    const std::vector<std::string> names = flagsOf(*other);
    all.insert(all.end(), names.begin(), names.end());
  }
  const std::vector<std::string> near = nearNames(flag, all);
  if (near.empty())
    return "";
  std::vector<std::string> having;
  for (const CLI::App *other : verbsOf(app))
    if (const auto names = flagsOf(*other);
        other != &verb && std::ranges::find(names, near.front()) != names.end())
      having.push_back(other->get_name());
  std::string text = "; " + near.front() + " is a flag of ";
  for (size_t i = 0; i < having.size(); ++i)
    text += (i == 0 ? "" : i + 1 == having.size() ? " and " : ", ") + having[i];
  return text;
}

/// What of the words `verb` could not take: each flag, which words behind it may have been values of; and
/// where no flag is, the words.
std::string unexpected(const CLI::App &app, const CLI::App &verb, const std::string &path) {
  const std::vector<std::string> extras = verb.remaining();
  const std::vector<std::string> names = flagsOf(verb);
  std::string text;
  for (const std::string &word : extras) {
    if (!isFlag(word))
      continue;
    const std::string flag = word.substr(0, word.find('='));
    const std::string hint = didYouMean(flag, names);
    text += (text.empty()          ? (path.empty() ? "there is no flag " : path + " has no flag ")
             : text.ends_with('?') ? " Nor has it "
                                   : "; nor has it ") +
            flag + (hint.empty() ? elsewhere(app, verb, flag) : hint);
  }
  if (!text.empty() || extras.empty())
    return text;
  for (const std::string &word : extras)
    text += (text.empty() ? path + (path.empty() ? "no '" : " takes no '") : " ") + word;
  return text + "'" + (hasLetter(extras.front()) ? didYouMean(extras.front(), names) : "");
}

/// CLI11's words for a value that an option can't take, in ours.
std::string valueMessage(const CLI::App &verb, const CLI::ParseError &error) {
  const std::string text = error.what();
  const auto behind = [&](std::string_view mark) {
    const size_t at = text.find(mark);
    return at == std::string::npos ? "" : text.substr(at + mark.size());
  };
  if (const std::string given = behind("Could not convert: "); !given.empty()) {
    const size_t equals = given.find(" = ");
    const CLI::Option *option = verb.get_option_no_throw(given.substr(0, equals));
    if (equals != std::string::npos && option)
      return given.substr(0, equals) + ": '" + given.substr(equals + 3) +
             (option->get_items_expected_max() == 0 ? "' is given, and it takes no value" : "' is no number");
  }
  const std::string flag = text.substr(0, text.find(": "));
  if (text.ends_with(" missing"))
    return flag + ": its value is missing";
  if (const std::string times = behind(": At Most 1 required but received "); !times.empty())
    return flag + ": is given " + times + " times; once is allowed";
  return text;
}

} // namespace

std::vector<std::string> withHelpLast(const CLI::App &app, std::vector<std::string> words) {
  if (words.empty() || words.front() != "help" || std::ranges::find(words, "--help") != words.end())
    return words;
  words.erase(words.begin());
  const CLI::App *at = &app;
  for (const std::string &word : words) {
    if (verbsOf(*at).empty() || word.starts_with('-'))
      break;
    at = verbNamed(*at, word);
    if (!at)
      return words;
  }
  words.emplace_back("--help");
  return words;
}

std::string usageMessage(const CLI::App &app, const CLI::ParseError &error,
                         const std::vector<std::string> &words) {
  const CLI::App *at = &app;
  std::string path = "flashplus";
  size_t word = 0;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
    ++word;
  }
  std::string message;
  const std::vector<const CLI::App *> verbs = verbsOf(*at);
  if (!verbs.empty() && word < words.size() && !words[word].starts_with('-')) {
    message = (word ? path.substr(path.find(' ') + 1) + ": " : "") + "unknown subcommand '" + words[word] +
              "', allowed are";
    std::vector<std::string> names;
    for (const CLI::App *verb : verbs) {
      message += (verb == verbs.front() ? " " : ", ") + verb->get_name();
      names.push_back(verb->get_name());
    }
    message += didYouMean(words[word], names);
  } else {
    // A wrong flag may be why another is missing.
    message = unexpected(app, *at, word ? path.substr(path.find(' ') + 1) : "");
    if (message.empty() || !dynamic_cast<const CLI::ExtrasError *>(&error))
      message += (message.empty() ? "" : message.ends_with('?') ? " " : ". ") + valueMessage(*at, error);
  }
  return message + " (try '" + path + " --help')";
}

} // namespace flashplus::tool
