// SPDX-License-Identifier: BSD-3-Clause
#include "spec/target.h"

#include <algorithm>
#include <charconv>

namespace flashplus {
namespace {

constexpr int kSm80Chips[] = {80, 86, 87, 89, 90, 100, 103, 120, 121};
constexpr int kSm90aChips[] = {90};

constexpr IsaInfo kTargets[] = {
    {Isa::X86_64_v3, TargetKind::Cpu, 0, "x86-64-v3", 8, 16, 0, 0, "", {}},
    {Isa::X86_64_v4, TargetKind::Cpu, 0, "x86-64-v4", 16, 32, 0, 0, "", {}},
    {Isa::X86_64_v4_Bf16, TargetKind::Cpu, kBf16Dot, "x86-64-v4+avx512bf16", 16, 32, 0, 0, "", {}},
    {Isa::Sm80, TargetKind::Gpu, kMmaSync, "sm_80", 0, 0, 80, 12000, "", kSm80Chips},
    // PTX 8.0 has wgmma and TMA; LLVM emits some of it only from 8.6 on, which drivers for CUDA 12.7 brought.
    {Isa::Sm90a, TargetKind::Gpu, kMmaSync | kTma | kWgmma | kSetMaxRegisters, "sm_90a", 0, 0, 86, 12070, "a",
     kSm90aChips},
};

std::string allowed() {
  std::string names;
  for (const IsaInfo &row : kTargets)
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

} // namespace

std::span<const IsaInfo> isaTable() { return kTargets; }

const IsaInfo &isaInfo(Isa isa) {
  for (const IsaInfo &row : kTargets)
    if (row.isa == isa)
      return row;
  return kTargets[0];
}

std::string Target::text() const {
  std::string text(isaInfo(isa).name);
  return isGpu(isa) ? text + "@" + chipName() : text;
}

std::string Target::chipName() const {
  return "sm_" + std::to_string(chip) + std::string(isaInfo(isa).chip_suffix);
}

Result<Target> Target::parse(std::string_view text) {
  const size_t at = text.find('@');
  for (const IsaInfo &row : kTargets) {
    if (row.name != text.substr(0, at))
      continue;
    if (!isGpu(row.isa)) {
      if (at != std::string_view::npos)
        break;
      return Target{row.isa, 0};
    }
    int chip = row.chips.front();
    if (at != std::string_view::npos) {
      std::string_view name = text.substr(at + 1);
      if (name.starts_with("sm_"))
        name.remove_prefix(3);
      if (name.ends_with(row.chip_suffix))
        name.remove_suffix(row.chip_suffix.size());
      else
        name = {};
      const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), chip);
      if (error != std::errc() || stop != name.data() + name.size() ||
          std::ranges::count(row.chips, chip) == 0) {
        std::string chips;
        for (int c : row.chips)
          chips += (chips.empty() ? "" : ", ") + Target{row.isa, c}.chipName();
        return invalidArgument("target '" + std::string(text) + "': the chip after '@' must be one of " +
                               chips);
      }
    }
    return Target{row.isa, chip};
  }
  return invalidArgument("target '" + std::string(text) + "' is not known; it must be one of " + allowed() +
                         " (a GPU one may add '@sm_NN', the chip to assemble for)");
}

int Target::sharedMemoryPerBlock() const {
  // CUDA C++ programming guide, technical specifications per compute capability: opt-in maximum of a block.
  switch (chip) {
  case 0:
    return 0;
  case 80:
  case 87:
    return 163 * 1024;
  case 90:
  case 100:
  case 103:
    return 227 * 1024;
  default:
    return 99 * 1024;
  }
}

} // namespace flashplus
