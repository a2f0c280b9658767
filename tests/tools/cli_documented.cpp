// SPDX-License-Identifier: BSD-3-Clause
// What the documents and every --help show as commands are commands: their flags and values are those of the
// verb.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <filesystem>
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

} // namespace

TEST_CASE("commands of the documents are understood") {
  const std::filesystem::path root = test::dataFile("../..");
  std::vector<std::filesystem::path> files = {root / "README.md"};
  for (const char *folder : {"docs", "docs/rationale"})
    for (const auto &entry : std::filesystem::directory_iterator(root / folder))
      if (entry.path().extension() == ".md")
        files.push_back(entry.path());
  size_t count = 0;
  for (const auto &file : files)
    for (const std::string &command : commandsOf(test::readText(file.string()))) {
      INFO(file.string());
      isCommand(command);
      ++count;
    }
  CHECK(count > 30);
}

TEST_CASE("examples of --help are understood") {
  size_t count = 0;
  for (const char *verb : {"run", "warmup", "inspect", "emulate", "bench", "tune", "devices", "cache"})
    for (const std::string &command : commandsOf(runCli({verb, "--help"}).out)) {
      isCommand(command);
      ++count;
    }
  CHECK(count > 20);
}
