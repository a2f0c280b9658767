// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/terminal.h"

#include <algorithm>
#include <sstream>
#include <sys/ioctl.h>
#include <unistd.h>

namespace flashplus::tool {

namespace {

constexpr int kPlainWidth = 100, kLeastWidth = 30, kNames = 30;

/// CLI11's own wraps nothing.
class WrappingFormatter : public CLI::Formatter {
public:
  explicit WrappingFormatter(int width) : width_(width) {}

  std::string make_option(const CLI::Option *option, bool positional) const override {
    return row(make_option_name(option, positional) + make_option_opts(option), make_option_desc(option));
  }
  std::string make_subcommand(const CLI::App *sub) const override {
    return row(sub->get_display_name(true), sub->get_description());
  }
  std::string make_description(const CLI::App *app) const override {
    return app->get_description().empty() ? "" : wrapped(app->get_description(), width_, 0) + "\n";
  }
  std::string make_footer(const CLI::App *app) const override {
    return app->get_footer().empty() ? "" : wrapped(app->get_footer(), width_, 0) + "\n";
  }

private:
  /// Names, and what they mean beside them; below them where there is no room.
  std::string row(const std::string &names, const std::string &meaning) const {
    const bool beside = width_ >= 2 * kNames + 10;
    const int indent = beside ? kNames : 6;
    std::string line = "  " + names;
    if (beside && line.size() + 2 <= kNames)
      line.resize(kNames, ' ');
    else
      line = "  " + wrapped(names, width_ - 4, 4) + "\n" + std::string(static_cast<size_t>(indent), ' ');
    if (meaning.empty())
      return "  " + wrapped(names, width_ - 4, 4) + "\n";
    return line + wrapped(meaning, width_ - indent, indent) + "\n";
  }

  int width_;
};

} // namespace

int terminalWidth(int descriptor) {
  winsize size = {};
  return ::isatty(descriptor) && ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

std::string wrapped(const std::string &text, int width, int indent) {
  const std::string margin(static_cast<size_t>(indent), ' ');
  const auto most = static_cast<size_t>(std::max(width, 10));
  std::string out, paragraph;
  const auto flush = [&] {
    std::istringstream words(paragraph);
    std::string line;
    for (std::string word; words >> word;) {
      if (!line.empty() && line.size() + 1 + word.size() > most) {
        out += (out.empty() ? "" : "\n" + margin) + line;
        line.clear();
      }
      line += (line.empty() ? "" : " ") + word;
    }
    if (!line.empty())
      out += (out.empty() ? "" : "\n" + margin) + line;
    paragraph.clear();
  };
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.front() != ' ') {
      paragraph += " " + line;
      continue;
    }
    flush();
    out += (out.empty() ? "" : "\n") + line;
  }
  flush();
  return out;
}

void formatHelp(CLI::App &app) {
  const int width = terminalWidth(STDOUT_FILENO);
  const auto formatter =
      std::make_shared<WrappingFormatter>(width == 0 ? kPlainWidth : std::max(width, kLeastWidth));
  std::vector<CLI::App *> all = {&app};
  while (!all.empty()) {
    CLI::App *one = all.back();
    all.pop_back();
    one->formatter(formatter);
    for (CLI::App *verb : one->get_subcommands([](const CLI::App *) { return true; }))
      all.push_back(verb);
  }
}

} // namespace flashplus::tool
