// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/gpu_names.h"

#include "tools/flashplus/near.h"

#include <algorithm>
#include <cctype>

namespace flashplus::tool {

namespace {

struct GpuRow {
  std::string_view target, family;
  std::vector<std::string> names; ///< Lower case, without blanks and dashes.
};

/// By compute capability (NVIDIA's table of them). A new chip is a row here once spec/target.cpp knows it.
const std::vector<GpuRow> &gpuTable() {
  static const std::vector<GpuRow> table = {
      {"sm_80@sm_80", "ampere", {"a100", "a800", "a30", "ax800"}},
      {"sm_80@sm_86",
       "ampere",
       {"a10", "a10g", "a16", "a2", "a40", "rtxa2000", "rtxa4000", "rtxa4500", "rtxa5000", "rtxa6000",
        "rtx3050", "rtx3060", "rtx3070", "rtx3080", "rtx3090"}},
      {"sm_80@sm_87", "ampere", {"orin", "agxorin", "orinnx", "orinnano"}},
      {"sm_80@sm_89",
       "ada",
       {"l4", "l20", "l40", "l40s", "l2", "rtx4000ada", "rtx4500ada", "rtx5000ada", "rtx6000ada", "rtx4060",
        "rtx4070", "rtx4080", "rtx4090"}},
      {"sm_90a@sm_90a", "hopper", {"h100", "h200", "h800", "h20", "gh200"}},
      {"sm_80@sm_100", "blackwell", {"b100", "b200", "gb200"}},
      {"sm_80@sm_103", "blackwell", {"b300", "gb300"}},
      {"sm_80@sm_120", "blackwell", {"rtx5060", "rtx5070", "rtx5080", "rtx5090", "rtxpro6000"}},
      {"sm_80@sm_121", "blackwell", {"gb10", "dgxspark"}},
  };
  return table;
}

std::string plain(std::string_view name) {
  std::string out;
  for (char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)))
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (std::string_view maker : {"nvidia", "geforce", "tesla"})
    if (const size_t at = out.find(maker); at != std::string::npos)
      out.erase(at, maker.size());
  // What a shop adds changes no instruction.
  static const char *const kForms[] = {"sxm5", "sxm4", "sxm",   "pcie",    "nvl",   "hbm3e", "hbm3",
                                       "80gb", "40gb", "141gb", "superti", "super", "ti",    "laptopgpu"};
  for (bool again = true; again;) {
    again = false;
    for (std::string_view form : kForms)
      if (out.size() > form.size() && out.ends_with(form)) {
        out.resize(out.size() - form.size());
        again = true;
      }
  }
  return out;
}

} // namespace

std::optional<std::string> targetOfGpu(std::string_view name) {
  const std::string wanted = plain(name);
  for (const GpuRow &row : gpuTable())
    for (const std::string &one : row.names)
      if (one == wanted)
        return std::string(row.target);
  return std::nullopt;
}

std::vector<std::string> gpuNames() {
  std::vector<std::string> names;
  for (const GpuRow &row : gpuTable())
    names.insert(names.end(), row.names.begin(), row.names.end());
  return names;
}

std::vector<std::string> targetsOfFamily(std::string_view name) {
  std::string wanted = plain(name);
  if (wanted == "lovelace" || wanted == "adalovelace")
    wanted = "ada";
  std::vector<std::string> targets;
  for (const GpuRow &row : gpuTable())
    if (row.family == wanted)
      targets.emplace_back(row.target);
  return targets;
}

Result<std::string> gpuTargetFor(const std::string &flag, const std::string &name) {
  if (auto target = targetOfGpu(name))
    return *target;
  const std::vector<std::string> names = gpuNames();
  std::string message = flag + " '" + name + "': is no GPU of the table";
  if (const std::string near = didYouMean(name, names); !near.empty())
    return invalidArgument(message + near);
  message += "; it has";
  for (const std::string &one : names)
    message += (one == names.front() ? " " : ", ") + one;
  return invalidArgument(message + ". Another one is named by its chip: --target sm_80 --arch sm_89");
}

std::string gpuTableText() {
  std::string text;
  for (const GpuRow &row : gpuTable()) {
    text += "  " + std::string(row.target) + ":";
    for (const std::string &name : row.names)
      text += " " + name;
    text += "\n";
  }
  return text;
}

} // namespace flashplus::tool
