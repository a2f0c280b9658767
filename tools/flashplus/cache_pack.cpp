// SPDX-License-Identifier: BSD-3-Clause
// flashplus cache export and import: kernels as one file, and back.
#include "cache/pack.h"
#include "cache/pack_writer.h"
#include "tools/flashplus/cache_entries.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/durations.h"
#include "tools/flashplus/table.h"
#include "tools/flashplus/variants.h"

#include <algorithm>
#include <ctime>
#include <set>

namespace flashplus::tool {

namespace {

constexpr int64_t kUseSeconds = 3600; ///< The store notes a use once in so long (cache/store.h).
constexpr TextLimits kRecordLimits = {
    .file_bytes = int64_t(4) << 20, .files = int64_t(kMaxPackTexts), .all_bytes = int64_t(16) << 20};
constexpr size_t kNamedMissing = 10;

struct ExportFlags {
  CommonFlags common;
  EntryFilter filter; ///< Targets and chips.
  VariantFlags variants;
  std::string output, used_since;
  bool partial = false, no_tuning = false;
};

/// The kernels that --spec, --specs and --model mean.
Result<std::set<Kernel>> wantedKernels(const ExportFlags &flags, flashplus_context *context,
                                       const std::set<std::string> &targets) {
  VariantFlags variants = flags.variants;
  if (variants.namesSpecs() && !variants.model.empty())
    return invalidArgument("--model: does not go with --spec and --specs");
  variants.targets.assign(targets.begin(), targets.end());
  auto enumerated = enumerateVariants(variants, context);
  if (!enumerated)
    return enumerated.status();
  return std::set<Kernel>(enumerated->kernels.begin(), enumerated->kernels.end());
}

Status lacking(const std::set<Kernel> &missing, size_t all, const std::vector<RefusalInfo> &refusals) {
  const auto refusal = [&](const Kernel &kernel) {
    const auto found = std::ranges::find_if(refusals, [&](const RefusalInfo &known) {
      return kernel == Kernel{known.key.spec, known.key.schedule, known.key.target};
    });
    return found == refusals.end() ? "" : "  (refused " + refusalText(*found) + ")";
  };
  std::string text = std::to_string(missing.size()) + " of the " + std::to_string(all) +
                     " kernels are not in the cache; warm them first, or say --partial:";
  size_t named = 0;
  for (const Kernel &kernel : missing) {
    if (named++ == kNamedMissing) {
      text += "\n  and " + std::to_string(missing.size() - kNamedMissing) + " more";
      break;
    }
    text += "\n  " + kernel.target + "  " + kernel.spec + "  " + kernel.schedule + refusal(kernel);
  }
  return Status(StatusCode::NotResident, std::move(text));
}

Result<int> exportPack(const ExportFlags &flags) {
  int64_t since = INT64_MIN;
  if (!flags.used_since.empty()) {
    auto parsed = parseSince("--used-since", flags.used_since, std::time(nullptr));
    if (!parsed)
      return parsed.status();
    since = *parsed - kUseSeconds;
  }
  Result<Context> context = makeContext(flags.common, /*offline=*/true);
  if (!context)
    return context.status();
  auto store = openStore(flags.common);
  if (!store)
    return store.status();
  auto build = libraryBuild(context->get());
  if (!build)
    return build.status();
  PackContents contents;
  contents.source = store->get();
  std::set<std::string> targets;
  size_t other_builds = 0, bad = 0;
  for (EntryInfo &entry : (*store)->list()) {
    if (!entry.isGood())
      ++bad;
    else if (!flags.filter.fits(entry) || entry.modified < since)
      continue;
    else if (entry.key.build != *build)
      ++other_builds;
    else {
      targets.insert(entry.key.target);
      contents.entries.push_back(std::move(entry));
    }
  }
  size_t missing_count = 0;
  if (flags.variants.namesSpecs() || !flags.variants.model.empty()) {
    // A target that says all ("sm_80@sm_90", "x86-64-v4") is wanted even where the cache has none for it.
    for (const std::string &target : flags.filter.targets)
      if ((target.find('@') != std::string::npos || target.starts_with("x86")) &&
          flags.filter.fitsTarget(target))
        targets.insert(target);
    if (targets.empty())
      return Status(StatusCode::NotResident, "there is no kernel of this build for such a target in '" +
                                                 (*store)->dir() + "'; warm them first");
    auto wanted = wantedKernels(flags, context->get(), targets);
    if (!wanted)
      return wanted.status();
    std::set<Kernel> missing = *wanted;
    std::erase_if(contents.entries, [&](const EntryInfo &entry) {
      const Kernel kernel{entry.key.spec, entry.key.schedule, entry.key.target};
      missing.erase(kernel);
      return !wanted->contains(kernel);
    });
    if (!missing.empty() && !flags.partial)
      return lacking(missing, wanted->size(), (*store)->refusals());
    missing_count = missing.size();
  }
  if (contents.entries.empty())
    return Status(StatusCode::NotResident,
                  "no kernel in '" + (*store)->dir() + "' is meant" +
                      (other_builds ? "; " + std::to_string(other_builds) +
                                          " are of other builds of the library, which is build " + *build
                                    : ""));
  if (!flags.no_tuning)
    for (TextFile &record : (*store)->texts("tuning", ".json", kRecordLimits))
      contents.texts.push_back({record.path.substr(record.path.rfind('/') + 1), std::move(record.text)});
  targets.clear();
  for (const EntryInfo &entry : contents.entries)
    targets.insert(entry.key.target);
  const size_t kernels = contents.entries.size(), records = contents.texts.size();
  auto bytes = writePack(flags.output, std::move(contents));
  if (!bytes)
    return bytes.status();
  if (flags.common.json) {
    printJson({{"pack", flags.output},
               {"kernels", kernels},
               {"bytes", *bytes},
               {"targets", targets},
               {"tuning_records", records},
               {"build", *build},
               {"missing", missing_count},
               {"other_builds", other_builds},
               {"bad", bad}});
    return kExitGood;
  }
  std::string list;
  for (const std::string &target : targets)
    list += (list.empty() ? "" : ", ") + target;
  std::printf("%zu kernels for %s, %s, in %s\n", kernels, list.c_str(),
              bytesText(static_cast<double>(*bytes)).c_str(), flags.output.c_str());
  if (records)
    std::printf("with %zu tuning records\n", records);
  if (missing_count)
    std::printf("%zu more are not in the cache\n", missing_count);
  if (other_builds)
    std::printf("%zu of other builds of the library are left out\n", other_builds);
  if (bad)
    std::printf("%zu that are bad are left out; flashplus cache verify names them\n", bad);
  return kExitGood;
}

struct ImportFlags {
  CommonFlags common;
  EntryFilter filter;
  std::vector<std::string> packs;
};

struct Imported {
  size_t kernels = 0, present = 0, bad = 0, records = 0, records_present = 0;
};

Status importPack(const KernelPack &pack, const ImportFlags &flags, KernelStore &store, Imported &sum) {
  for (const EntryInfo &entry : pack.list()) {
    if (!entry.isGood()) {
      ++sum.bad;
      std::fprintf(stderr, "flashplus: %s: %s\n", entry.path.c_str(), entry.problem.c_str());
      continue;
    }
    if (!flags.filter.fits(entry))
      continue;
    auto bytes = pack.entryBytes(entry.name);
    if (!bytes)
      return bytes.status();
    const Entry whole = parseEntry(*bytes);
    const int64_t before = store.counters().already_there;
    FLASHPLUS_RETURN_IF_ERROR(store.publish(whole.key, whole.artifact));
    ++(store.counters().already_there > before ? sum.present : sum.kernels);
  }
  for (const TextFile &record : pack.texts("tuning", ".json", kRecordLimits)) {
    const std::string name = record.path.substr(record.path.rfind('/') + 1);
    auto placed = store.addText("tuning", name, record.text);
    if (!placed)
      return placed.status();
    ++(*placed == KernelStore::TextPlaced::New ? sum.records : sum.records_present);
    if (*placed == KernelStore::TextPlaced::OtherThere)
      std::fprintf(stderr, "flashplus: %s/tuning/%s is there and says something else; it is left as it is\n",
                   store.dir().c_str(), name.c_str());
  }
  return Status::ok();
}

Result<int> importPacks(const ImportFlags &flags) {
  Result<Context> context = makeContext(flags.common, /*offline=*/true);
  if (!context)
    return context.status();
  auto build = libraryBuild(context->get());
  if (!build)
    return build.status();
  std::vector<std::unique_ptr<KernelPack>> packs;
  for (const std::string &path : flags.packs) {
    packs.push_back(KernelPack::open(path, *build, [](const std::string &) {}));
    if (!packs.back()->onDisk())
      return Status(StatusCode::IoError, packs.back()->reason());
    if (!packs.back()->isThere())
      return invalidArgument("'" + path + "' is not there");
  }
  auto store = openStoreToWrite(flags.common);
  if (!store)
    return store.status();
  Imported sum;
  for (const auto &pack : packs)
    FLASHPLUS_RETURN_IF_ERROR(importPack(*pack, flags, **store, sum));
  const int64_t evicted = (*store)->counters().evicted;
  if (flags.common.json)
    printJson({{"dir", (*store)->dir()},
               {"imported", sum.kernels},
               {"present", sum.present},
               {"bad", sum.bad},
               {"evicted", evicted},
               {"tuning_records", sum.records}});
  else
    std::printf("%zu kernels imported, %zu present, %zu bad, into %s\n", sum.kernels, sum.present, sum.bad,
                (*store)->dir().c_str());
  if (sum.records && !flags.common.json)
    std::printf("with %zu tuning records\n", sum.records);
  if (evicted)
    std::fprintf(stderr,
                 "flashplus: %lld kernels that were not used for longest had to go: the cache has at most "
                 "%s ($FLASHPLUS_CACHE_SIZE)\n",
                 static_cast<long long>(evicted),
                 bytesText(static_cast<double>((*store)->mostBytes())).c_str());
  return sum.bad ? kExitFailed : kExitGood;
}

} // namespace

void addCacheExport(CLI::App &cache, Action *selected) {
  CLI::App *verb = cache.add_subcommand("export", "Write kernels into one file, a pack");
  verb->footer(
      "The pack holds kernels of this build of the library, and the cache's tuning records. It is used "
      "where it lies\n($FLASHPLUS_CACHE_PATH=/srv/kernels.fpk), or imported. The same kernels are the "
      "same bytes.\n\nExamples:\n"
      "  flashplus cache export -o kernels.fpk\n"
      "  flashplus cache export --used-since 1d --target sm_90a -o kernels.fpk\n"
      "  flashplus cache export --model config.json --target sm_90a -o kernels.fpk");
  auto flags = std::make_shared<ExportFlags>();
  verb->add_option("-o,--output", flags->output, "The file; a pack that is there is replaced")
      ->required()
      ->type_name("FILE");
  verb->add_option("--spec", flags->variants.spec_texts,
                   "Only the kernels of a variant, as errors and `cache ls` name it; may be given again")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  verb->add_option("--specs", flags->variants.spec_files,
                   "A file of them, as $FLASHPLUS_RECORD_MISSES writes it")
      ->allow_extra_args(false)
      ->type_name("FILE");
  verb->add_option("--model", flags->variants.model,
                   "Only those that a server of this model meets: its config.json")
      ->type_name("FILE");
  verb->add_flag("--backward", flags->variants.backward, "With --model: those of its training, too");
  addTargetFilter(*verb, flags->filter);
  verb->add_option(
          "--used-since", flags->used_since,
          "Only those used since then: an age such as 12h or 30d, or a day such as 2026-11-30; to the "
          "hour")
      ->type_name("WHEN");
  verb->add_flag("--partial", flags->partial, "Write the pack even if kernels of the variants are missing");
  verb->add_flag("--no-tuning", flags->no_tuning, "Without tuning records");
  addCommonFlags(*verb, flags->common);
  verb->callback([flags, selected] { *selected = [flags] { return exportPack(*flags); }; });
}

void addCacheImport(CLI::App &cache, Action *selected) {
  CLI::App *verb = cache.add_subcommand("import", "Copy the kernels of packs into the cache");
  verb->footer("What is there already stays, unless it is worse. A pack may be used without being imported: "
               "$FLASHPLUS_CACHE_PATH.\n\nExample:\n  flashplus cache import kernels.fpk");
  auto flags = std::make_shared<ImportFlags>();
  verb->add_option("packs", flags->packs, "Packs, as cache export writes them")
      ->required()
      ->type_name("FILE ...");
  addTargetFilter(*verb, flags->filter);
  addCommonFlags(*verb, flags->common);
  verb->callback([flags, selected] { *selected = [flags] { return importPacks(*flags); }; });
}

} // namespace flashplus::tool
