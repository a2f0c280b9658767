// SPDX-License-Identifier: BSD-3-Clause
// flashplus cache why: for each kernel of a variant whether it is on disk, and if not, what is nearest to it
// there and in which fields of the key that differs.
#include "spec/kernel.h"
#include "spec/kernel_spec.h"
#include "tools/flashplus/cache_entries.h"
#include "tools/flashplus/disk_cache.h"
#include "tools/flashplus/spec_list.h"
#include "tools/flashplus/variants.h"

#include "spec/schedule.h"

#include <algorithm>
#include <optional>

namespace flashplus::tool {

namespace {

struct WhyFlags {
  CommonFlags common;
  std::string spec, schedule;
  std::vector<std::string> targets, archs;
};

/// A part of a field that is not the same.
struct Difference {
  std::string field, asked, there;
};

/// "tile_m=64": the name, and the text. A word without "=" (the operation, the algorithm) is its own name.
std::string nameOf(const std::string &word) { return word.substr(0, word.find('=')); }

/// Word by word: what one has and the other has not, or has otherwise.
void compareWords(const std::string &field, const std::string &asked, const std::string &there,
                  std::vector<Difference> &out) {
  std::vector<std::string> a = specWords(asked), b = specWords(there);
  if (!a.empty() && !b.empty() && a[0] != b[0] && a[0].find('=') == std::string::npos)
    out.push_back({field, a[0], b[0]});
  const auto find = [](const std::vector<std::string> &words, const std::string &name) {
    const auto it = std::ranges::find(words, name, nameOf);
    return it == words.end() ? std::string("nothing") : *it;
  };
  for (size_t i = 0; i < a.size(); ++i)
    if (const std::string other = find(b, nameOf(a[i]));
        other != a[i] && (i || a[i].find('=') != std::string::npos))
      out.push_back({field, a[i], other});
  for (size_t i = 0; i < b.size(); ++i)
    if ((i || b[i].find('=') != std::string::npos) && find(a, nameOf(b[i])) == "nothing")
      out.push_back({field, "nothing", b[i]});
}

/// All differences of two keys, field by field, as FLASHPLUS_KEY_FIELDS has them.
std::vector<Difference> compare(const KernelKey &asked, const KernelKey &there) {
  std::vector<Difference> out;
#define FLASHPLUS_COMPARE(NAME)                                                                              \
  if (asked.NAME != there.NAME) {                                                                            \
    const std::string field = #NAME;                                                                         \
    if (field == "spec" || field == "schedule")                                                              \
      compareWords(field, asked.NAME, there.NAME, out);                                                      \
    else                                                                                                     \
      out.push_back({field, asked.NAME.empty() ? "nothing" : asked.NAME,                                     \
                     there.NAME.empty() ? "nothing" : there.NAME});                                          \
  }
  FLASHPLUS_KEY_FIELDS(FLASHPLUS_COMPARE)
#undef FLASHPLUS_COMPARE
  // The layout of the params follows from the spec.
  if (asked.spec != there.spec)
    std::erase_if(out, [](const Difference &difference) { return difference.field == "params"; });
  return out;
}

struct Answer {
  Kernel kernel;
  std::string key;
  const EntryInfo *present = nullptr, *nearest = nullptr;
  const RefusalInfo *refused = nullptr; ///< Where it is not present.
  std::vector<Difference> differences;

  const char *state() const { return present ? "present" : refused ? "refused" : "missing"; }
};

/// How far apart two keys are. Another operation, algorithm or target is further than another number.
size_t distance(const std::vector<Difference> &differences) {
  size_t sum = 0;
  for (const Difference &d : differences)
    sum += d.field == "target" || (d.asked != "nothing" && d.asked.find('=') == std::string::npos) ? 10 : 1;
  return sum;
}

Answer answer(const Kernel &kernel, const KernelKey &key, const std::vector<EntryInfo> &entries,
              const std::vector<RefusalInfo> &refusals) {
  Answer answer{kernel, key.hex(), nullptr, nullptr, nullptr, {}};
  for (const EntryInfo &entry : entries) {
    if (!entry.isGood())
      continue;
    std::vector<Difference> differences = compare(key, entry.key);
    // What the driver of a GPU here assembled is of use here.
    const bool same = std::ranges::all_of(
        differences, [](const Difference &d) { return d.field == "driver" && d.there != "ptx"; });
    if (same) {
      answer.present = &entry;
      return answer;
    }
    const auto isNearer = [&] {
      const size_t far = distance(differences), before = distance(answer.differences);
      return !answer.nearest || far < before || (far == before && entry.name < answer.nearest->name);
    };
    if (isNearer()) {
      answer.nearest = &entry;
      answer.differences = std::move(differences);
    }
  }
  const auto refused = std::ranges::find(refusals, key, &RefusalInfo::key);
  answer.refused = refused == refusals.end() ? nullptr : &*refused;
  return answer;
}

Json answerJson(const Answer &answer) {
  Json row = {{"spec", answer.kernel.spec},
              {"schedule", answer.kernel.schedule},
              {"target", answer.kernel.target},
              {"key", answer.key},
              {"state", answer.state()}};
  if (answer.present)
    row["path"] = answer.present->path;
  if (answer.refused)
    row["refusal"] = refusalJson(*answer.refused);
  if (!answer.present && answer.nearest) {
    Json differs = Json::array();
    for (const Difference &d : answer.differences)
      differs.push_back({{"field", d.field}, {"asked", d.asked}, {"there", d.there}});
    row["nearest"] = {{"key", answer.nearest->name},
                      {"path", answer.nearest->path},
                      {"modified", answer.nearest->modified},
                      {"differs", std::move(differs)}};
  }
  return row;
}

void print(const Answer &answer) {
  std::printf("%s  %s  %s  %s\n", answer.state(), answer.kernel.target.c_str(), answer.kernel.spec.c_str(),
              answer.kernel.schedule.c_str());
  if (answer.present) {
    std::printf("  %s\n", answer.present->path.c_str());
    return;
  }
  if (answer.refused) {
    std::printf("  %s\n", refusalText(*answer.refused).c_str());
    return;
  }
  std::printf("  its key would be %s\n", answer.key.c_str());
  if (!answer.nearest) {
    std::printf("  there are no kernels to compare it with\n");
    return;
  }
  std::printf("  nearest: %s, written or used %s\n", answer.nearest->path.c_str(),
              timeText(answer.nearest->modified).c_str());
  for (const Difference &d : answer.differences)
    std::printf("    %-9s %s asked, %s there\n", d.field.c_str(), d.asked.c_str(), d.there.c_str());
}

Result<int> why(const WhyFlags &flags) {
  VariantFlags variants;
  variants.spec_texts = {flags.spec};
  variants.targets = flags.targets;
  variants.archs = flags.archs;
  std::string schedule;
  if (!flags.schedule.empty()) {
    Result<Schedule> parsed = Schedule::parse(flags.schedule);
    if (!parsed)
      return invalidArgument("--schedule: " + parsed.status().message());
    schedule = parsed->text();
  }
  Result<Context> context = makeContext(flags.common, /*offline=*/true);
  if (!context)
    return context.status();
  auto enumerated = enumerateVariants(variants, context->get());
  if (!enumerated)
    return enumerated.status();
  std::vector<Kernel> kernels = enumerated->kernels;
  if (!schedule.empty()) {
    std::erase_if(kernels, [&](const Kernel &kernel) { return kernel.schedule != schedule; });
    if (kernels.empty()) // a schedule that no plan takes of itself, of a run with --schedule
      for (const Variant &variant : enumerated->specs)
        kernels.push_back({variant.spec, schedule, variant.target});
  }
  auto sources = openSources(context->get());
  if (!sources)
    return sources.status();
  std::vector<EntryInfo> entries;
  std::vector<RefusalInfo> refusals;
  std::string places;
  for (const auto &source : sources->all) {
    std::vector<EntryInfo> listed = source->list();
    std::ranges::move(listed, std::back_inserter(entries));
    std::ranges::move(source->refusals(), std::back_inserter(refusals));
    places += (places.empty() ? "" : ", ") + source->dir();
  }
  Json rows = Json::array();
  size_t present = 0, refused = 0;
  for (const Kernel &kernel : kernels) {
    Result<KernelSpec> spec = KernelSpec::parse(kernel.spec);
    if (!spec)
      return spec.status();
    KernelKey key;
    key.spec = kernel.spec;
    key.schedule = kernel.schedule;
    key.target = kernel.target;
    const ParamLayout layout = paramLayout(*spec);
    key.params = paramLayoutText(layout.fields, layout.size);
    key.build = sources->build;
    const Answer found = answer(kernel, key, entries, refusals);
    present += found.present != nullptr;
    refused += found.refused != nullptr;
    if (flags.common.json)
      rows.push_back(answerJson(found));
    else
      print(found);
  }
  if (flags.common.json)
    printJson({{"kernels", rows},
               {"present", present},
               {"refused", refused},
               {"missing", kernels.size() - present - refused}});
  else
    std::printf("%zu kernels, %zu present, %s%zu missing, in %s\n", kernels.size(), present,
                refused ? (std::to_string(refused) + " refused, ").c_str() : "",
                kernels.size() - present - refused, places.empty() ? "no cache" : places.c_str());
  return kExitGood;
}

} // namespace

void addCacheWhy(CLI::App &cache, Action *selected) {
  CLI::App *verb = cache.add_subcommand("why", "Explain which kernels of a variant are missing, and why");
  verb->footer(
      "A kernel that is missing is compared with what is on disk, and the fields in which the nearest "
      "differs are shown.\nOne that was tried and does not compile is shown with the reason; cache clear and "
      "cache prune forget it.\n\nExample:\n"
      "  flashplus cache why 'forward dtype=bf16 dqk=64 dv=64 right=1' --target x86-64-v3");
  auto flags = std::make_shared<WhyFlags>();
  verb->add_option("spec", flags->spec, "The variant, as errors and `cache ls` name it")
      ->required()
      ->type_name("SPEC");
  verb->add_option("--schedule", flags->schedule, "Only the kernel of this schedule")->type_name("TEXT");
  verb->add_option("--target", flags->targets, "For these targets [this machine's]")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("TARGET,...");
  verb->add_option("--arch", flags->archs, "Chips that a GPU target is assembled for [its own]")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("CHIP,...");
  addCommonFlags(*verb, flags->common);
  verb->callback([flags, selected] { *selected = [flags] { return why(*flags); }; });
}

} // namespace flashplus::tool
