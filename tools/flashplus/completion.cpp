// SPDX-License-Identifier: BSD-3-Clause
// flashplus completion: the script that makes a shell complete verbs, flags and their values, from the verbs'
// own flags, so that it knows all of them.
#include "tools/flashplus/choice.h"
#include "tools/flashplus/command.h"

#include <algorithm>
#include <cstdio>

namespace flashplus::tool {

namespace {

std::string joined(const std::vector<std::string> &words) {
  std::string text;
  for (const std::string &word : words)
    text += (text.empty() ? "" : " ") + word;
  return text;
}

/// Between the first `open` and the `close` behind it, with blanks for `separator`; "" if that is not there.
std::string between(const std::string &text, char open, char close, char separator) {
  const size_t from = text.find(open), to = text.find(close, from == std::string::npos ? 0 : from);
  if (from == std::string::npos || to == std::string::npos)
    return "";
  std::string words = text.substr(from + 1, to - from - 1);
  std::ranges::replace(words, separator, ' ');
  return words;
}

/// The names that an option's check allows, with blanks between them; "" if any text is allowed.
std::string namesOf(const CLI::Option &option) {
  const std::string type = option.get_type_name();
  if (const std::string names = between(type, '{', '}', ','); !names.empty())
    return names;
  return type.find('|') != std::string::npos ? between(type, '[', ']', '|') : "";
}

/// What the shell does for what stands behind a flag; "" if nothing is known of it. Files and folders are
/// left to the shell itself, which knows how their names are quoted.
std::string completerOf(const CLI::Option &option) {
  if (const std::string names = namesOf(option); !names.empty())
    return (option.get_delimiter() == ',' ? "_flashplus_list '" : "_flashplus_words '") + names + "'; return";
  const std::string type = option.get_type_name();
  return type.find("FILE") != std::string::npos  ? "return"
         : type.find("DIR") != std::string::npos ? "compopt +o default -o dirnames 2> /dev/null; return"
                                                 : "";
}

/// Cases of the shell's `case`: what the words so far are, and what may come.
void addCases(const CLI::App &app, const std::string &path, std::string &flags, std::string &values) {
  std::vector<std::string> words;
  for (const CLI::App *verb : app.get_subcommands([](const CLI::App *) { return true; })) {
    words.push_back(verb->get_name());
    addCases(*verb, path.empty() ? verb->get_name() : path + " " + verb->get_name(), flags, values);
  }
  for (const CLI::Option *option : app.get_options()) {
    if (option->get_positional() && !namesOf(*option).empty())
      words.push_back(namesOf(*option)); // words of its own, not behind a flag
    const std::string completer = completerOf(*option);
    const auto add = [&](const std::string &flag) {
      if (!completer.empty())
        values += "    '" + path + " " + flag + "') " + completer + " ;;\n";
    };
    for (const std::string &name : option->get_lnames()) {
      words.push_back("--" + name);
      add("--" + name);
    }
    for (const std::string &name : option->get_snames())
      add("-" + name);
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
         "# Each offers words that begin with $cur, with $before put before them; of a list, for its last "
         "part.\n"
         "_flashplus_words() {\n"
         "  mapfile -t COMPREPLY < <(compgen -P \"$before\" -W \"$1\" -- \"$cur\")\n"
         "}\n"
         "_flashplus_list() {\n"
         "  [[ $cur == *,* ]] && before+=${cur%,*},\n"
         "  cur=${cur##*,}\n"
         "  _flashplus_words \"$1\"\n"
         "}\n"
         "_flashplus() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= words= word before=\n"
         "  # --flag=value is three words, or one where = is not in COMP_WORDBREAKS.\n"
         "  if [[ $cur == = ]]; then\n"
         "    cur=\n"
         "  elif [[ $prev == = ]]; then\n"
         "    prev=${COMP_WORDS[COMP_CWORD-2]}\n"
         "  elif [[ $cur == --*=* ]]; then\n"
         "    prev=${cur%%=*} before=${cur%%=*}= cur=${cur#*=}\n"
         "  fi\n"
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
         "  _flashplus_words \"$words\"\n"
         "}\n"
         "complete -o default -F _flashplus flashplus\n";
}

void addCompletion(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("completion", "Print what makes a shell complete verbs and flags");
  verb->footer("The installed command brings it along; for one that lies elsewhere:\n\n"
               "Example:\n"
               "  flashplus completion bash > flashplus.bash && source flashplus.bash");
  auto shell = std::make_shared<std::string>();
  verb->add_option("SHELL", *shell, "bash")->required()->transform(oneOf({"bash"}))->type_name("");
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
  verb->add_option("VERB", *words, "Which")->transform(oneOf(names))->type_name("");
  verb->callback([selected] { *selected = []() -> Result<int> { return kExitGood; }; });
}

} // namespace flashplus::tool
