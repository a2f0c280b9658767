// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/roofs.h"

#include <algorithm>

namespace flashplus::tool {

namespace {

/// Dense fp16 and bf16 with fp32 accumulation, and memory, as NVIDIA's data sheets have them. The first row
/// whose name is part of the device's counts.
struct SheetRow {
  std::string_view name;
  double tflops, gigabytes;
};
constexpr SheetRow kSheets[] = {
    {"H200", 989.5, 4800},      {"GH200", 989.5, 4000},
    {"H100 PCIe", 756.5, 2000}, {"H100 NVL", 835.5, 3900},
    {"H100", 989.5, 3350},      {"H800", 989.5, 3350},
    {"H20", 148, 4000},         {"A100-SXM4-80GB", 312, 2039},
    {"A100 80GB", 312, 1935},   {"A100", 312, 1555},
    {"A800", 312, 2039},        {"A30", 165, 933},
    {"A40", 149.7, 696},        {"L40S", 362, 864},
    {"L40", 181, 864},          {"L4", 121, 300},
};

std::string modelOf(const Json &result) {
  if (result.contains("device") && result["device"].is_object())
    return result["device"].value("model", "");
  return result.contains("gpu") && result["gpu"].is_object() ? result["gpu"].value("name", "") : "";
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
  const std::string model = modelOf(result);
  const auto row = std::ranges::find_if(
      kSheets, [&](const SheetRow &one) { return model.find(one.name) != std::string::npos; });
  const bool known = row != std::end(kSheets);
  roofs.flops_source = roofs.bytes_source = "not known; ";
  roofs.flops_source += "--peak TFLOP/s says it";
  roofs.bytes_source += "--roof GB/s says it";
  if (known) {
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
