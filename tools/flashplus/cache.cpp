// SPDX-License-Identifier: BSD-3-Clause
// flashplus cache: looks at, verifies and empties the disk cache.
#include "tools/flashplus/command.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <ctime>
#include <map>

namespace flashplus::tool {

namespace {

const char *kindText(CodeKind kind) {
  switch (kind) {
  case CodeKind::X86Object:
    return "x86-object";
  case CodeKind::Ptx:
    return "ptx";
  case CodeKind::Cubin:
    return "cubin";
  }
  return "";
}

std::string timeText(int64_t seconds) {
  auto time = static_cast<std::time_t>(seconds);
  std::tm parts = {};
  char buffer[32] = "";
  if (::localtime_r(&time, &parts))
    std::strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M", &parts);
  return buffer;
}

Json entryJson(const EntryInfo &entry) {
  Json json = {
      {"key", entry.name}, {"path", entry.path}, {"bytes", entry.bytes}, {"modified", entry.modified}};
  if (!entry.isGood()) {
    json["problem"] = entry.problem;
    json["error"] = entryErrorName(entry.error);
    return json;
  }
  json["kind"] = kindText(entry.kind);
  json["target"] = entry.key.target;
  json["spec"] = entry.key.spec;
  json["schedule"] = entry.key.schedule;
  json["build"] = entry.key.build;
  json["provenance"] = entry.provenance;
  return json;
}

Result<int> listEntries(const CommonFlags &flags) {
  auto store = openStore(flags);
  if (!store)
    return store.status();
  std::vector<EntryInfo> entries = (*store)->list();
  if (flags.json) {
    Json rows = Json::array();
    for (const EntryInfo &entry : entries)
      rows.push_back(entryJson(entry));
    printJson({{"dir", (*store)->dir()}, {"entries", rows}});
    return kExitGood;
  }
  Table table({"key", "size", "written", "target", "kernel"});
  for (const EntryInfo &entry : entries)
    table.add({entry.name.substr(0, 16), bytesText(static_cast<double>(entry.bytes)),
               timeText(entry.modified), entry.isGood() ? entry.key.target : "-",
               entry.isGood() ? entry.key.spec + " | " + entry.key.schedule : "BAD: " + entry.problem});
  if (!table.empty())
    table.print();
  std::printf("%zu kernels in %s\n", entries.size(), (*store)->dir().c_str());
  return kExitGood;
}

Result<int> showStats(const CommonFlags &flags) {
  auto store = openStore(flags);
  if (!store)
    return store.status();
  struct Sum {
    int64_t kernels = 0, bytes = 0;
  };
  std::map<std::string, Sum> by_target;
  std::map<std::string, int64_t> by_kind, bad_by_reason;
  Sum all, bad;
  int64_t oldest = 0, newest = 0;
  for (const EntryInfo &entry : (*store)->list()) {
    oldest = all.kernels ? std::min(oldest, entry.modified) : entry.modified;
    newest = std::max(newest, entry.modified);
    ++(entry.isGood()
           ? by_kind[kindText(entry.kind)]
           : bad_by_reason[entry.error == EntryError::None ? "unreadable" : entryErrorName(entry.error)]);
    for (Sum *sum : {&all, entry.isGood() ? &by_target[entry.key.target] : &bad}) {
      ++sum->kernels;
      sum->bytes += entry.bytes;
    }
  }
  if (flags.json) {
    Json targets = Json::object();
    for (const auto &[target, sum] : by_target)
      targets[target] = {{"kernels", sum.kernels}, {"bytes", sum.bytes}};
    printJson({{"dir", (*store)->dir()},
               {"kernels", all.kernels},
               {"bytes", all.bytes},
               {"bad", bad.kernels},
               {"bad_by_reason", bad_by_reason},
               {"targets", targets},
               {"kinds", by_kind},
               {"oldest", oldest},
               {"newest", newest}});
    return kExitGood;
  }
  Table table({"target", "kernels", "size"});
  table.alignRightFrom(1);
  for (const auto &[target, sum] : by_target)
    table.add({target, std::to_string(sum.kernels), bytesText(static_cast<double>(sum.bytes))});
  if (bad.kernels)
    table.add({"(bad)", std::to_string(bad.kernels), bytesText(static_cast<double>(bad.bytes))});
  table.add({"total", std::to_string(all.kernels), bytesText(static_cast<double>(all.bytes))});
  table.print();
  std::printf("in %s\n", (*store)->dir().c_str());
  return kExitGood;
}

Result<int> verifyEntries(const CommonFlags &flags) {
  auto store = openStore(flags);
  if (!store)
    return store.status();
  std::vector<EntryInfo> entries = (*store)->list();
  Json bad = Json::array();
  for (const EntryInfo &entry : entries)
    if (!entry.isGood()) {
      bad.push_back(entryJson(entry));
      if (!flags.json)
        std::printf("%s: %s\n", entry.path.c_str(), entry.problem.c_str());
    }
  if (flags.json)
    printJson({{"dir", (*store)->dir()}, {"kernels", entries.size()}, {"bad", bad}});
  else
    std::printf("%zu kernels, %zu bad, in %s\n", entries.size(), bad.size(), (*store)->dir().c_str());
  return bad.empty() ? kExitGood : kExitFailed;
}

Result<int> clearEntries(const CommonFlags &flags) {
  auto store = openStore(flags);
  if (!store)
    return store.status();
  Result<StoreUsage> removed = (*store)->clear();
  if (!removed)
    return removed.status();
  if (flags.json)
    printJson({{"dir", (*store)->dir()}, {"removed", removed->entries}, {"bytes", removed->bytes}});
  else
    std::printf("removed %lld kernels, %s, from %s\n", static_cast<long long>(removed->entries),
                bytesText(static_cast<double>(removed->bytes)).c_str(), (*store)->dir().c_str());
  return kExitGood;
}

} // namespace

void addCache(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("cache", "List, count, verify or clear the kernels on disk");
  verb->require_subcommand(1);
  verb->footer("Examples:\n  flashplus cache ls\n  flashplus cache verify --cache-dir /srv/flashplus");
  struct Row {
    const char *name, *help, *footer;
    Result<int> (*action)(const CommonFlags &);
  };
  static constexpr Row kRows[] = {
      {"ls", "List the kernels", "Example:\n  flashplus cache ls --json", listEntries},
      {"stats", "Count kernels and bytes by target",
       "What a process did with the cache is counted in that process: flashplus_get_counters(), and `run "
       "--json`.\n\n"
       "Example:\n  flashplus cache stats --json",
       showStats},
      {"verify", "Read and verify every kernel; exit status 1 when one is bad",
       "Bad kernels are rebuilt when they are next needed.\n\nExample:\n  flashplus cache verify",
       verifyEntries},
      {"clear", "Remove all kernels", "Example:\n  flashplus cache clear",
       clearEntries}};
  for (const Row &row : kRows) {
    CLI::App *sub = verb->add_subcommand(row.name, row.help);
    sub->footer(row.footer);
    auto flags = std::make_shared<CommonFlags>();
    addCommonFlags(*sub, *flags);
    sub->callback(
        [flags, selected, action = row.action] { *selected = [flags, action] { return action(*flags); }; });
  }
}

} // namespace flashplus::tool
