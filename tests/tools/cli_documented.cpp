// SPDX-License-Identifier: BSD-3-Clause
// What the documents and every --help show as commands are commands: their flags and values are those of the
// verb.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"
#include "tests/tools/temporary.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

using namespace flashplus;
using test::runCli;

namespace {

/// Words of a shell line up to its comment; quotes group. Empty where the shell would do more than that.
std::vector<std::string> wordsOf(const std::string &line) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool any = false;
  for (char c : line + " ") {
    if (quote || c == '\'' || c == '"') {
      if (quote && c != quote)
        word += c;
      else
        quote = quote ? 0 : c;
      any = true;
    } else if (c == '$' || c == '|' || c == '>' || c == '`') {
      return {};
    } else if (c == '#' && !any) {
      break;
    } else if (c != ' ') {
      word += c;
      any = true;
    } else if (any) {
      words.push_back(word);
      word.clear();
      any = false;
    }
  }
  return words;
}

/// Lines that begin with the command's name, those that a backslash continues as one.
std::vector<std::string> commandsOf(const std::string &text) {
  std::vector<std::string> commands;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    const size_t start = line.find_first_not_of(' ');
    if (start == std::string::npos || !line.substr(start).starts_with("flashplus "))
      continue;
    std::string command = line.substr(start);
    while (command.ends_with('\\') && std::getline(stream, line))
      command = command.substr(0, command.size() - 1) + line;
    commands.push_back(command.substr(0, command.find("   ("))); // what follows is for people
  }
  return commands;
}

/// Every flag is known and every value allowed: the only complaint is about a flag that no verb has.
void isCommand(const std::string &command) {
  std::vector<std::string> words = wordsOf(command);
  if (words.empty())
    return;
  words.erase(words.begin());
  words.push_back("--no-such-flag");
  auto result = runCli(words);
  INFO(command);
  INFO(result.err);
  CHECK(result.code == 2);
  CHECK(result.err.find("not expected: --no-such-flag (try") != std::string::npos);
}

/// README and the documents.
std::vector<std::filesystem::path> documents() {
  const std::filesystem::path root = test::dataFile("../..");
  std::vector<std::filesystem::path> files = {root / "README.md"};
  for (const char *folder : {"docs", "docs/rationale"})
    for (const auto &entry : std::filesystem::directory_iterator(root / folder))
      if (entry.path().extension() == ".md")
        files.push_back(entry.path());
  return files;
}

constexpr const char *kVerbs[] = {"run", "warmup", "inspect", "emulate", "bench", "tune", "devices", "cache"};

/// `text` with each number of `--random` at most 40, so that what is shown for a large GPU is soon done on a
/// CPU.
std::string smallSizes(const std::string &text) {
  std::string small, number;
  for (char c : text + ',') {
    if (c >= '0' && c <= '9') {
      number += c;
      continue;
    }
    small += number.size() > 2 || (number.size() == 2 && number > "40") ? "40" : number;
    small += c;
    number.clear();
  }
  small.pop_back();
  return small;
}

#ifdef FLASHPLUS_HAS_COMPILER

/// Runs a command that needs no GPU, no file of the reader's and no minutes: it succeeds. False where it
/// needs one.
bool runs(const std::string &command, const std::string &cache) {
  std::vector<std::string> words = wordsOf(command);
  if (words.size() < 2)
    return false;
  words.erase(words.begin());
  const auto has = [&](const char *flag) { return std::ranges::find(words, flag) != words.end(); };
  if (words[0] == "run") {
    for (const char *flag :
         {"--in", "--q", "--tensor", "--cu-seqlens-q", "--out", "-o", "--alibi", "--device"})
      if (has(flag))
        return false;
    for (size_t i = 0; i + 1 < words.size(); ++i)
      if (words[i] == "--random" || words[i] == "--rotary")
        words[i + 1] = words[i] == "--rotary" ? "16" : smallSizes(words[i + 1]);
    words.insert(words.end(), {"--device", "cpu"});
  } else if (words[0] == "inspect") {
    if (has("resources") || has("sass"))
      return false; // an assembler's
  } else if (words[0] != "devices") {
    return false;
  }
  auto result = runCli(words, cache);
  INFO(command);
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK(result.out != "");
  return true;
}

#endif // FLASHPLUS_HAS_COMPILER

} // namespace

#ifdef FLASHPLUS_HAS_COMPILER

TEST_CASE("commands of the documents and of --help that need nothing more do what they say") {
  test::TemporaryFolder folder;
  std::set<std::string> commands;
  for (const auto &file : documents())
    for (const std::string &command : commandsOf(test::readText(file.string())))
      commands.insert(command);
  for (const char *verb : kVerbs)
    for (const std::string &command : commandsOf(runCli({verb, "--help"}).out))
      commands.insert(command);
  size_t count = 0;
  for (const std::string &command : commands)
    count += runs(command, folder.path("cache"));
  CHECK(count > 15);
}

#endif // FLASHPLUS_HAS_COMPILER

TEST_CASE("commands of the documents are understood") {
  size_t count = 0;
  for (const auto &file : documents())
    for (const std::string &command : commandsOf(test::readText(file.string()))) {
      INFO(file.string());
      isCommand(command);
      ++count;
    }
  CHECK(count > 30);
}

TEST_CASE("examples of --help are understood") {
  size_t count = 0;
  for (const char *verb : kVerbs)
    for (const std::string &command : commandsOf(runCli({verb, "--help"}).out)) {
      isCommand(command);
      ++count;
    }
  CHECK(count > 20);
}
