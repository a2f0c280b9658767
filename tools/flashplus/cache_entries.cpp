// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/cache_entries.h"

#include <algorithm>
#include <ctime>

namespace flashplus::tool {

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

Json refusalJson(const RefusalInfo &refusal) {
  return {{"key", refusal.key.hex()},
          {"path", refusal.path},
          {"bytes", refusal.bytes},
          {"modified", refusal.noted},
          {"target", refusal.key.target},
          {"spec", refusal.key.spec},
          {"schedule", refusal.key.schedule},
          {"build", refusal.key.build},
          {"toolchain", refusal.refusal.toolchain},
          {"reason", refusal.refusal.reason}};
}

std::string refusalText(const RefusalInfo &refusal) {
  const std::string &by = refusal.refusal.toolchain;
  std::string text = "by " + (by.empty() ? "the compiler" : by) + ", " + timeText(refusal.noted) + ": " +
                     refusal.refusal.reason;
  std::ranges::replace(text, '\n', ' ');
  return text;
}

std::vector<std::string> specWords(const std::string &text) {
  std::vector<std::string> words;
  std::string word;
  int depth = 0;
  for (const char c : text + " ") {
    if (c == ' ' && depth == 0) {
      if (!word.empty())
        words.push_back(std::move(word));
      word.clear();
      continue;
    }
    depth += c == '{';
    depth -= c == '}' && depth > 0;
    word += c;
  }
  if (!word.empty()) // a brace is open
    words.push_back(word);
  return words;
}

bool EntryFilter::fitsTarget(const std::string &target) const {
  const size_t at = target.find('@');
  const std::string instructions = target.substr(0, at),
                    chip = at == std::string::npos ? target : target.substr(at + 1);
  const bool is_gpu = target.starts_with("sm_");
  const auto isTarget = [&](const std::string &wanted) {
    return wanted == target || wanted == instructions || wanted == (is_gpu ? "cuda" : "cpu");
  };
  return (targets.empty() || std::ranges::any_of(targets, isTarget)) &&
         (archs.empty() || std::ranges::find(archs, chip) != archs.end());
}

bool EntryFilter::fits(const EntryInfo &entry) const { return entry.isGood() ? fits(entry.key) : !isGiven(); }

bool EntryFilter::fits(const KernelKey &key) const {
  const std::vector<std::string> words = specWords(key.spec);
  const auto hasWords = [&](const std::string &spec) {
    return std::ranges::all_of(specWords(spec), [&](const std::string &word) {
      return std::ranges::find(words, word) != words.end();
    });
  };
  return fitsTarget(key.target) && (specs.empty() || std::ranges::any_of(specs, hasWords));
}

void addTargetFilter(CLI::App &verb, EntryFilter &filter) {
  verb.add_option("--target", filter.targets,
                  "Only those for these targets, such as sm_80@sm_90, sm_90a, x86-64-v4, cpu, cuda")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("TARGET,...");
  verb.add_option("--arch", filter.archs, "Only those assembled for these chips, such as sm_90")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("CHIP,...");
}

} // namespace flashplus::tool
