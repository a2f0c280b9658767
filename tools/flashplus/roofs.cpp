// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/roofs.h"

#include "tools/flashplus/machine.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace flashplus::tool {

namespace {

/// Dense fp16 and bf16 with fp32 accumulation, and memory, as NVIDIA's data sheets have them. `also`: words
/// that a device of this row may have in its name, too. A name with any other word is of another device, such
/// as a slice of one (MIG) or the card of a virtual machine, and has no row.
struct SheetRow {
  std::string_view name, also;
  double tflops, gigabytes;
};
constexpr SheetRow kSheets[] = {
    {"H200", "SXM SXM5 141GB", 989.5, 4800},
    {"H200 NVL", "141GB", 835.5, 4800},
    {"GH200", "480GB 96GB", 989.5, 4000},
    {"H100", "SXM SXM5 80GB", 989.5, 3350},
    {"H100 PCIe", "80GB", 756.5, 2000},
    {"H100 NVL", "94GB", 835.5, 3900},
    {"H800", "SXM SXM5 80GB", 989.5, 3350},
    {"H20", "96GB", 148, 4000},
    {"A100", "SXM SXM4 PCIe 40GB", 312, 1555},
    {"A100 80GB", "PCIe", 312, 1935},
    {"A100-SXM4-80GB", "", 312, 2039},
    {"A800-SXM4-80GB", "", 312, 2039},
    {"A800 80GB", "PCIe", 312, 1935},
    {"A30", "PCIe 24GB", 165, 933},
    {"A40", "PCIe 48GB", 149.7, 696},
    {"L40S", "48GB", 362, 864},
    {"L40", "48GB", 181, 864},
    {"L4", "24GB", 121, 300},
};

/// In lower case; blanks and dashes are between them. The maker and the kind of memory are left out: they
/// tell no two devices apart.
std::set<std::string> wordsOf(std::string_view name) {
  std::set<std::string> words;
  std::string word;
  for (char c : std::string(name) + ' ') {
    if (c != ' ' && c != '-') {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      continue;
    }
    static const std::set<std::string> kIgnored = {"", "nvidia", "tesla", "hbm2", "hbm2e", "hbm3", "hbm3e"};
    if (!kIgnored.contains(word))
      words.insert(word);
    word.clear();
  }
  return words;
}

/// The row with the most words of `model`, if it explains all of them; null if none does.
const SheetRow *sheetOf(const std::string &model) {
  const std::set<std::string> words = wordsOf(model);
  const SheetRow *best = nullptr;
  for (const SheetRow &row : kSheets) {
    const std::set<std::string> name = wordsOf(row.name);
    std::set<std::string> known = wordsOf(row.also);
    known.insert(name.begin(), name.end());
    if (std::ranges::includes(words, name) && std::ranges::includes(known, words) &&
        (!best || name.size() > wordsOf(best->name).size()))
      best = &row;
  }
  return best;
}

} // namespace

double leastBytes(const Json &cell, const std::string &dtype) {
  if (const double keys = cell.value("key_bytes", 0.0); keys > 0)
    return keys; // of a decode step; what else it moves is little
  const double element = cell.value("dtype", dtype) == "fp32" ? 4 : 2;
  const double batch = cell.value("batch", 1.0), d = cell.value("head_dim", 0.0),
               dv = cell.value("head_dim_v", d);
  const double queries = cell.value("seqlen", 0.0), keys = cell.value("seqlen_k", queries);
  const double heads = cell.value("heads", 1.0), heads_k = cell.value("heads_k", heads);
  // Forward: q, k, v are read and o is written. Backward: o and dout are read too, dq, dk and dv written.
  const double passes = cell.value("backward", false) ? 2 : 1;
  return passes * batch * (d + dv) * element * (queries * heads + keys * heads_k);
}

Roofs Roofs::orElse(const Roofs &other) const {
  Roofs both = *this;
  if (flops == 0)
    both.flops = other.flops, both.flops_source = other.flops_source;
  if (bytes == 0)
    both.bytes = other.bytes, both.bytes_source = other.bytes_source;
  return both;
}

double Roofs::seconds(const Json &cell, const std::string &dtype) const {
  // fp32 has no figure of its own in the data sheets' table.
  const double arithmetic = flops > 0 ? cell.value("flops", 0.0) / flops : 0,
               memory = bytes > 0 ? leastBytes(cell, dtype) / bytes : 0;
  return std::max(arithmetic, memory);
}

double Roofs::share(const Json &cell, const std::string &dtype, double seconds) const {
  return seconds > 0 ? this->seconds(cell, dtype) / seconds : 0;
}

Roofs roofsOf(const Json &result) {
  Roofs roofs;
  const SheetRow *row = sheetOf(deviceModel(result));
  roofs.flops_source = roofs.bytes_source = "not known; ";
  roofs.flops_source += "--peak TFLOP/s says it";
  roofs.bytes_source += "--roof GB/s says it";
  if (row) {
    roofs.flops = 1e12 * row->tflops, roofs.bytes = 1e9 * row->gigabytes;
    roofs.flops_source = roofs.bytes_source = "data sheet of the " + std::string(row->name);
  }
  if (const double given = result.value("roof_flops_per_second", 0.0); given > 0) {
    roofs.flops = given;
    roofs.flops_source = result.value("roof_flops_source", "of the result file");
  }
  if (const double given = result.value("roof_bytes_per_second", 0.0); given > 0) {
    roofs.bytes = given;
    roofs.bytes_source = result.value("roof_bytes_source", "of the result file");
  }
  return roofs;
}

} // namespace flashplus::tool
