// SPDX-License-Identifier: BSD-3-Clause
// flashplus completion: the script that makes a shell complete verbs, flags and their values, from the verbs'
// own flags, so that it knows all of them.
#include "tools/flashplus/command.h"

#include <cstdio>

namespace flashplus::tool {

namespace {

std::string joined(const std::vector<std::string> &words) {
  std::string text;
  for (const std::string &word : words)
    text += (text.empty() ? "" : " ") + word;
  return text;
}

/// What may stand behind a flag: the names that its check allows, or "-f" and "-d" for files and folders.
std::string valuesOf(const CLI::Option &option) {
  std::string type = option.get_type_name();
  if (const size_t from = type.find('{'), to = type.find('}'); from != std::string::npos && to != from + 1) {
    std::string words = type.substr(from + 1, to - from - 1);
    for (char &c : words)
      c = c == ',' ? ' ' : c;
    return "-W '" + words + "'";
  }
  return type.find("FILE") != std::string::npos ? "-f" : type.find("DIR") != std::string::npos ? "-d" : "";
}

/// Cases of the shell's `case`: what the words so far are, and what may come.
void addCases(const CLI::App &app, const std::string &path, std::string &flags, std::string &values) {
  std::vector<std::string> words;
  for (const CLI::App *verb : app.get_subcommands([](const CLI::App *) { return true; })) {
    words.push_back(verb->get_name());
    addCases(*verb, path.empty() ? verb->get_name() : path + " " + verb->get_name(), flags, values);
  }
  for (const CLI::Option *option : app.get_options())
    if (const std::string what = option->get_positional() ? valuesOf(*option) : ""; what.starts_with("-W '"))
      words.push_back(what.substr(4, what.size() - 5)); // words of its own, not behind a flag
  for (const CLI::Option *option : app.get_options())
    for (const std::string &name : option->get_lnames()) {
      words.push_back("--" + name);
      if (const std::string what = valuesOf(*option); !what.empty())
        values +=
            "    '" + path + " --" + name + "') COMPREPLY=($(compgen " + what + " -- \"$cur\")); return ;;\n";
    }
  flags += "    '" + path + "') words='" + joined(words) + "' ;;\n";
}

} // namespace

std::string bashCompletion(const CLI::App &app) {
  std::string flags, values, verbs, under;
  for (const CLI::App *verb : app.get_subcommands([](const CLI::App *) { return true; })) {
    verbs += (verbs.empty() ? "" : "|") + verb->get_name();
    for (const CLI::App *second : verb->get_subcommands([](const CLI::App *) { return true; }))
      under += (under.empty() ? "" : "|") + ("'" + verb->get_name() + " " + second->get_name() + "'");
  }
  addCases(app, "", flags, values);
  return "# bash completion for flashplus; made by `flashplus completion bash`.\n"
         "_flashplus() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= words= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"$path${path:+ }$word\" in\n"
         "      " +
         verbs + (under.empty() ? "" : "|" + under) +
         ") path=\"$path${path:+ }$word\" ;;\n"
         "    esac\n"
         "  done\n"
         "  COMPREPLY=()\n"
         "  case \"$path $prev\" in\n" +
         values +
         "  esac\n"
         "  case \"$path\" in\n" +
         flags +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "}\n"
         "complete -o default -F _flashplus flashplus\n";
}

void addCompletion(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("completion", "Print what makes a shell complete verbs and flags");
  verb->footer("The installed command brings it along; for one that lies elsewhere:\n\n"
               "Example:\n"
               "  flashplus completion bash > flashplus.bash && source flashplus.bash");
  auto shell = std::make_shared<std::string>();
  verb->add_option("SHELL", *shell, "bash")->required()->check(CLI::IsMember({"bash"}))->type_name("");
  verb->callback([&app, shell, selected] {
    *selected = [&app, shell]() -> Result<int> {
      std::fputs(bashCompletion(app).c_str(), stdout);
      return kExitGood;
    };
  });
}

void addHelp(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("help", "Explain a verb, as its --help does");
  verb->footer("Examples:\n"
               "  flashplus help\n"
               "  flashplus help bench\n"
               "  flashplus help cache verify");
  auto words = std::make_shared<std::vector<std::string>>();
  std::vector<std::string> names;
  for (const CLI::App *other : app.get_subcommands([](const CLI::App *) { return true; }))
    if (other != verb)
      names.push_back(other->get_name());
  // main() makes "VERB --help" of all that comes here.
  verb->add_option("VERB", *words, "Which")->check(CLI::IsMember(names))->type_name("");
  verb->callback([selected] { *selected = []() -> Result<int> { return kExitGood; }; });
}

} // namespace flashplus::tool
