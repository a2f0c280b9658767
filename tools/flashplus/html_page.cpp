// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/html_page.h"

#include <algorithm>
#include <cstdio>

namespace flashplus::tool {

namespace {

constexpr const char *kStyle = R"(
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 1240px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.6em; margin: 0; } h2 { font-size: 1.2em; margin: 2em 0 .5em; border-bottom: 1px solid #ccc; }
header p { color: #555; margin: .2em 0 0; } nav { margin: 1em 0; } nav a { margin-right: 1.2em; color: #0072b2; }
table { border-collapse: collapse; font-size: .92em; display: block; overflow-x: auto; }
th, td { padding: .25em .8em .25em 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eee; }
th { color: #555; font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; }
.good, .bad { padding: .5em .8em; border-left: 4px solid #009e73; background: #eef8f4; }
.bad { border-color: #d55e00; background: #fdf2ea; } svg { max-width: 100%; height: auto; }
.bar { display: flex; align-items: center; margin: .15em 0; font-size: .92em; } .bar .l { width: 26em; flex: none; }
.bar .b { background: #9ec5dd; height: 1.05em; margin-right: .6em; } .bar .s { background: #d55e00; }
figure { overflow-x: auto; }
@media (max-width: 700px) { .bar .l { width: 11em; } svg { max-width: none; } figure { margin: 1em 0; } }
@media print { nav { display: none; } }
)";

} // namespace

std::string escapedHtml(const std::string &text) {
  std::string out;
  for (char c : text)
    out += c == '&'                                                       ? "&amp;"
           : c == '<'                                                     ? "&lt;"
           : c == '>'                                                     ? "&gt;"
           : c == '"'                                                     ? "&quot;"
           : static_cast<unsigned char>(c) < 32 && c != '\n' && c != '\t' ? " "
                                                                          : std::string(1, c);
  return out;
}

void HtmlPage::section(const std::string &id, const std::string &heading) {
  if (!sections_.empty())
    body_ += "</section>\n";
  sections_.emplace_back(id, heading);
  body_ += "<section id=\"" + id + "\">\n<h2>" + escapedHtml(heading) + "</h2>\n";
}

void HtmlPage::paragraph(const std::string &text) { body_ += "<p>" + escapedHtml(text) + "</p>\n"; }

void HtmlPage::verdict(bool good, const std::string &text) {
  body_ += std::string("<p class=\"") + (good ? "good" : "bad") + "\">" + escapedHtml(text) + "</p>\n";
}

void HtmlPage::table(const std::vector<std::string> &headers,
                     const std::vector<std::vector<std::string>> &rows, size_t numeric_from) {
  const auto row = [&](const std::vector<std::string> &cells, const char *element) {
    body_ += "<tr>";
    for (size_t i = 0; i < cells.size(); ++i)
      body_ += std::string("<") + element + (i >= numeric_from ? " class=\"n\">" : ">") +
               escapedHtml(cells[i]) + "</" + element + ">";
    body_ += "</tr>\n";
  };
  body_ += "<table>\n";
  if (!headers.empty()) {
    body_ += "<thead>";
    row(headers, "th");
    body_ += "</thead>\n";
  }
  body_ += "<tbody>\n";
  for (const auto &cells : rows)
    row(cells, "td");
  body_ += "</tbody>\n</table>\n";
}

void HtmlPage::bars(const std::vector<Bar> &bars) {
  double most = 0;
  for (const Bar &bar : bars)
    most = std::max(most, bar.value);
  for (const Bar &bar : bars) {
    char width[32];
    std::snprintf(width, sizeof width, "%.2f", most > 0 ? 45 * bar.value / most : 0.0);
    body_ += "<div class=\"bar\"><span class=\"l\">" + escapedHtml(bar.label) + "</span><span class=\"b" +
             (bar.strong ? " s" : "") + "\" style=\"width: " + width + "%\"></span><span>" +
             escapedHtml(bar.says) + "</span></div>\n";
  }
}

void HtmlPage::svg(const std::string &text) {
  std::string inner = text;
  // Inside HTML the name space is known, and a page without any address is easily checked.
  constexpr std::string_view kSpace = " xmlns=\"http://www.w3.org/2000/svg\"";
  if (const size_t at = inner.find(kSpace); at != std::string::npos)
    inner.erase(at, kSpace.size());
  body_ += "<figure>" + inner + "</figure>\n";
}

std::string HtmlPage::text() const {
  std::string nav;
  for (const auto &[id, heading] : sections_)
    nav += "<a href=\"#" + id + "\">" + escapedHtml(heading) + "</a>";
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>" +
         escapedHtml(title_) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<header><h1>" +
         escapedHtml(title_) + "</h1><p>" + escapedHtml(subtitle_) + "</p></header>\n<nav>" + nav +
         "</nav>\n" + body_ + (sections_.empty() ? "" : "</section>\n") + "</body>\n</html>\n";
}

} // namespace flashplus::tool
