// SPDX-License-Identifier: BSD-3-Clause
// One HTML file that needs nothing beside itself: no script, no font, no address of another file.
#pragma once

#include <string>
#include <vector>

namespace flashplus::tool {

std::string escapedHtml(const std::string &text);

/// Sections in the order in which they are added. The result is well-formed XML too.
class HtmlPage {
public:
  HtmlPage(std::string title, std::string subtitle)
      : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

  /// What follows belongs to it; `id` is a word.
  void section(const std::string &id, const std::string &heading);
  void paragraph(const std::string &text);
  /// A sentence that is to be seen first: `good` decides its colour.
  void verdict(bool good, const std::string &text);
  /// Cells from `numeric_from` on are right-aligned.
  void table(const std::vector<std::string> &headers, const std::vector<std::vector<std::string>> &rows,
             size_t numeric_from = static_cast<size_t>(-1));
  /// Bars of numbers from 0 to the largest, each with what it says behind it.
  struct Bar {
    std::string label;
    double value;
    std::string says;
    bool strong = false;
  };
  void bars(const std::vector<Bar> &bars);
  void svg(const std::string &text); ///< An <svg> element, as plot.h draws it.
  std::string text() const;

private:
  std::string title_, subtitle_, body_;
  std::vector<std::pair<std::string, std::string>> sections_;
};

} // namespace flashplus::tool
