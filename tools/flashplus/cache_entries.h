// SPDX-License-Identifier: BSD-3-Clause
// What the verbs of `flashplus cache` share: entries as text and JSON, and which of them are meant.
#pragma once

#include "cache/source.h"
#include "tools/flashplus/command.h"

#include <string>
#include <vector>

namespace flashplus::tool {

const char *kindText(CodeKind kind);
std::string timeText(int64_t seconds);
Json entryJson(const EntryInfo &entry);
Json refusalJson(const RefusalInfo &refusal);
/// "by ptxas 13.0, 2026-11-30 12:00: REASON", in one line.
std::string refusalText(const RefusalInfo &refusal);

/// Which entries are meant: those that fit each flag that was given.
struct EntryFilter {
  std::vector<std::string> specs;   ///< All words of one of these are in the entry's spec.
  std::vector<std::string> targets; ///< "sm_80@sm_90", or the instructions alone, or cpu, cuda.
  std::vector<std::string> archs;   ///< The chip.

  bool isGiven() const { return !specs.empty() || !targets.empty() || !archs.empty(); }
  /// False for what is no good entry if anything is given.
  bool fits(const EntryInfo &entry) const;
  bool fits(const KernelKey &key) const;
  bool fitsTarget(const std::string &target) const;
};
void addTargetFilter(CLI::App &verb, EntryFilter &filter);

/// The words of a spec's text: what is in braces or quotes is one.
std::vector<std::string> specWords(const std::string &text);

void addCacheExport(CLI::App &cache, Action *selected);
void addCacheImport(CLI::App &cache, Action *selected);
void addCacheWhy(CLI::App &cache, Action *selected);

} // namespace flashplus::tool
