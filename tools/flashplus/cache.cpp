// SPDX-License-Identifier: BSD-3-Clause
// flashplus cache: looks at, verifies, prunes and empties the disk cache; and packs (cache_pack.cpp).
#include "tools/flashplus/cache_entries.h"
#include "tools/flashplus/command.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/durations.h"
#include "tools/flashplus/table.h"

#include <algorithm>
#include <ctime>
#include <map>
#include <optional>

namespace flashplus::tool {

namespace {

struct CacheFlags {
  CommonFlags common;
  std::string pack; ///< To look at instead of the cache.
  EntryFilter filter;
  std::string older, most;
  bool stale_builds = false, dry_run = false;
};

/// What is looked at: the cache, or the pack that was named.
Result<std::unique_ptr<KernelSource>> openLooked(const CacheFlags &flags) {
  if (!flags.pack.empty())
    return openPackFile(flags.pack);
  auto store = openStore(flags.common);
  if (!store)
    return store.status();
  return std::unique_ptr<KernelSource>(std::move(*store));
}

Result<int> listEntries(const CacheFlags &flags) {
  auto store = openLooked(flags);
  if (!store)
    return store.status();
  std::vector<EntryInfo> entries = (*store)->list();
  std::erase_if(entries, [&](const EntryInfo &entry) { return !flags.filter.fits(entry); });
  std::vector<RefusalInfo> refusals = (*store)->refusals();
  std::erase_if(refusals, [&](const RefusalInfo &refusal) { return !flags.filter.fits(refusal.key); });
  if (flags.common.json) {
    Json rows = Json::array();
    for (const EntryInfo &entry : entries)
      rows.push_back(entryJson(entry));
    Json refused = Json::array();
    for (const RefusalInfo &refusal : refusals)
      refused.push_back(refusalJson(refusal));
    printJson({{"dir", (*store)->dir()}, {"entries", rows}, {"refused", refused}});
    return kExitGood;
  }
  Table table({"key", "size", "used", "target", "kernel"}); // to the hour (EntryInfo::modified)
  for (const EntryInfo &entry : entries)
    table.add({entry.name.substr(0, 16), bytesText(static_cast<double>(entry.bytes)),
               timeText(entry.modified), entry.isGood() ? entry.key.target : "-",
               entry.isGood() ? entry.key.spec + " | " + entry.key.schedule : "BAD: " + entry.problem});
  if (!table.empty())
    table.print();
  std::printf("%zu kernels in %s\n", entries.size(), (*store)->dir().c_str());
  if (!refusals.empty())
    std::printf("%zu that do not compile, and are not tried again by the same tools:\n", refusals.size());
  for (const RefusalInfo &refusal : refusals)
    std::printf("  %s  %s | %s\n    %s\n", refusal.key.target.c_str(), refusal.key.spec.c_str(),
                refusal.key.schedule.c_str(), refusalText(refusal).c_str());
  return kExitGood;
}

/// What processes did with the cache; nothing of a pack.
std::optional<UsageCounts> countsOf(const CacheFlags &flags) {
  if (!flags.pack.empty())
    return std::nullopt;
  auto store = openStore(flags.common);
  return store ? (*store)->counts() : std::nullopt;
}

Json countsJson(const UsageCounts &counts) {
  Json json = {{"since", counts.since}};
#define FLASHPLUS_COUNT(NAME) json[#NAME] = counts.NAME;
  FLASHPLUS_USAGE_COUNTS(FLASHPLUS_COUNT)
#undef FLASHPLUS_COUNT
  return json;
}

Result<int> showStats(const CacheFlags &flags) {
  auto store = openLooked(flags);
  if (!store)
    return store.status();
  const std::optional<UsageCounts> counts = countsOf(flags);
  struct Sum {
    int64_t kernels = 0, bytes = 0;
  };
  std::map<std::string, Sum> by_target;
  std::map<std::string, int64_t> by_kind, bad_by_reason;
  Sum all, bad, refused;
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
  for (const RefusalInfo &refusal : (*store)->refusals()) {
    ++refused.kernels;
    refused.bytes += refusal.bytes;
  }
  if (flags.common.json) {
    Json targets = Json::object();
    for (const auto &[target, sum] : by_target)
      targets[target] = {{"kernels", sum.kernels}, {"bytes", sum.bytes}};
    printJson({{"dir", (*store)->dir()},
               {"kernels", all.kernels},
               {"bytes", all.bytes},
               {"bad", bad.kernels},
               {"bad_by_reason", bad_by_reason},
               {"refused", refused.kernels},
               {"refused_bytes", refused.bytes},
               {"targets", targets},
               {"kinds", by_kind},
               {"oldest", oldest},
               {"newest", newest},
               {"counts", counts ? countsJson(*counts) : Json()}});
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
  if (refused.kernels)
    std::printf("%lld more do not compile, which is remembered in %s; flashplus cache ls shows why\n",
                static_cast<long long>(refused.kernels),
                bytesText(static_cast<double>(refused.bytes)).c_str());
  if (counts)
    std::printf(
        "since %s: %lld contexts found %lld kernels on disk and compiled %lld in %s; %lld entries were "
        "damaged, %lld could not be written\n",
        timeText(counts->since).c_str(), static_cast<long long>(counts->contexts),
        static_cast<long long>(counts->disk_hits), static_cast<long long>(counts->compiles),
        millisecondsText(static_cast<double>(counts->compile_us) / 1000).c_str(),
        static_cast<long long>(counts->miss_damaged), static_cast<long long>(counts->publish_failures));
  return kExitGood;
}

Result<int> verifyEntries(const CacheFlags &flags) {
  auto store = openLooked(flags);
  if (!store)
    return store.status();
  std::vector<EntryInfo> entries = (*store)->list();
  Json bad = Json::array();
  for (const EntryInfo &entry : entries)
    if (!entry.isGood()) {
      bad.push_back(entryJson(entry));
      if (!flags.common.json)
        std::printf("%s: %s\n", entry.path.c_str(), entry.problem.c_str());
    }
  if (flags.common.json)
    printJson({{"dir", (*store)->dir()}, {"kernels", entries.size()}, {"bad", bad}});
  else
    std::printf("%zu kernels, %zu bad, in %s\n", entries.size(), bad.size(), (*store)->dir().c_str());
  return bad.empty() ? kExitGood : kExitFailed;
}

/// `limits`: what stays; without them nothing does.
Result<int> removeEntries(const CacheFlags &flags, const std::optional<PruneLimits> &limits) {
  auto store = openStoreToRemove(flags.common);
  if (!store)
    return store.status();
  Result<StoreUsage> removed = !(*store)->isThere() ? StoreUsage()
                               : limits             ? (*store)->prune(*limits)
                                                    : (*store)->clear();
  if (!removed)
    return removed.status();
  if (flags.common.json)
    printJson({{"dir", (*store)->dir()},
               {"removed", removed->entries},
               {"bytes", removed->bytes},
               {"refusals", removed->refusals}});
  else {
    const std::string refusals =
        removed->refusals
            ? " and what was known of " + std::to_string(removed->refusals) + " that do not compile,"
            : "";
    std::printf("%s %lld kernels, %s,%s from %s\n", limits && limits->only_count ? "would remove" : "removed",
                static_cast<long long>(removed->entries),
                bytesText(static_cast<double>(removed->bytes)).c_str(), refusals.c_str(),
                (*store)->dir().c_str());
  }
  return kExitGood;
}

Result<int> clearEntries(const CacheFlags &flags) { return removeEntries(flags, std::nullopt); }

Result<int> pruneEntries(const CacheFlags &flags) {
  PruneLimits limits;
  limits.only_count = flags.dry_run;
  if (flags.older.empty() && flags.most.empty() && !flags.stale_builds)
    return invalidArgument("cache prune: say what is to go: --older, --max-size or --stale-builds");
  if (!flags.older.empty()) {
    auto age = parseAge("--older", flags.older);
    if (!age)
      return age.status();
    limits.used_since = std::time(nullptr) - *age;
  }
  if (!flags.most.empty()) {
    auto bytes = parseBytes("--max-size", flags.most);
    if (!bytes)
      return bytes.status();
    limits.most_bytes = *bytes;
  }
  if (flags.stale_builds) {
    Result<Context> context = makeContext(flags.common, /*offline=*/true);
    if (!context)
      return context.status();
    auto build = libraryBuild(context->get());
    if (!build)
      return build.status();
    limits.build = *build;
  }
  return removeEntries(flags, limits);
}

} // namespace

void addCache(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("cache", "List, count, verify, pack or remove the kernels on disk");
  verb->require_subcommand(1);
  verb->footer("Examples:\n  flashplus cache ls\n  flashplus cache verify --cache-dir ~/.cache/flashplus\n"
               "  flashplus cache export -o kernels.fpk");
  struct Row {
    const char *name, *help, *footer;
    Result<int> (*action)(const CacheFlags &);
    void (*more)(CLI::App &, CacheFlags &) = nullptr;
  };
  static constexpr auto takesPack = [](CLI::App &sub, CacheFlags &flags) {
    sub.add_option("pack", flags.pack, "A pack to look at instead of the cache")->type_name("[PACK]");
  };
  static constexpr Row kRows[] = {
      {"ls", "List the kernels",
       "Examples:\n  flashplus cache ls --json\n  flashplus cache ls --spec 'dqk=64 right=1' --target cpu",
       listEntries,
       [](CLI::App &sub, CacheFlags &flags) {
         takesPack(sub, flags);
         sub.add_option("--spec", flags.filter.specs, "Only those whose spec has all words of TEXT")
             ->allow_extra_args(false)
             ->type_name("TEXT");
         addTargetFilter(sub, flags.filter);
       }},
      {"stats", "Count kernels and bytes by target",
       "What processes did with the cache is summed up in its file `counts`, which each writes at most once "
       "a "
       "second\nand when it ends; one that is offline, or only reads, is not counted. Of one process: "
       "flashplus_get_counters(), and `run --json`.\n\n"
       "Example:\n  flashplus cache stats --json",
       showStats, takesPack},
      {"verify", "Read and verify every kernel; exit status 1 when one is bad",
       "Bad kernels are rebuilt when they are next needed.\n\nExample:\n  flashplus cache verify",
       verifyEntries, takesPack},
      {"prune", "Remove kernels that are old, too many or of other builds",
       "What was used last stays. Nothing but kernels, what is remembered of those that do not compile, and "
       "what\nwriters that died left behind is removed.\n\n"
       "Examples:\n  flashplus cache prune --older 30d --stale-builds\n"
       "  flashplus cache prune --max-size 500M --dry-run",
       pruneEntries,
       [](CLI::App &sub, CacheFlags &flags) {
         sub.add_option("--older", flags.older,
                        "Those that were not used for so long, such as 12h or 30d; to the hour")
             ->type_name("AGE");
         sub.add_option("--max-size", flags.most, "Those used least recently, beyond so many bytes: 500M, 2G")
             ->type_name("SIZE");
         sub.add_flag("--stale-builds", flags.stale_builds, "Those of other builds of the library");
         sub.add_flag("--dry-run", flags.dry_run, "Say how many would go, and remove none");
       }},
      {"clear", "Remove all kernels, and what is remembered of those that do not compile",
       "Example:\n  flashplus cache clear", clearEntries}};
  for (const Row &row : kRows) {
    CLI::App *sub = verb->add_subcommand(row.name, row.help);
    sub->footer(row.footer);
    auto flags = std::make_shared<CacheFlags>();
    if (row.more)
      row.more(*sub, *flags);
    addCommonFlags(*sub, flags->common);
    sub->callback(
        [flags, selected, action = row.action] { *selected = [flags, action] { return action(*flags); }; });
  }
  addCacheExport(*verb, selected);
  addCacheImport(*verb, selected);
  addCacheWhy(*verb, selected);
}

} // namespace flashplus::tool
