// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/report.h"

#include <algorithm>
#include <map>

namespace flashplus::emu {

nlohmann::ordered_json describeLaunch(const Program &program, const LaunchConfig &config, const Statistics &s,
                                      const SmRates &rates) {
  using Json = nlohmann::ordered_json;
  uint64_t by_class[kOpClasses] = {}, special_lanes = 0, passes = 0, conflicts = 0, instructions = 0,
           lanes = 0;
  double multiply_adds = 0;
  std::map<std::string_view, uint64_t> opcodes;
  struct Conflict {
    uint64_t extra;
    size_t pc;
  };
  std::vector<Conflict> worst;
  for (size_t pc = 0; pc < s.by_pc.size() && pc < program.code.size(); ++pc) {
    const Instruction &in = program.code[pc];
    const InstructionCount &c = s.by_pc[pc];
    if (!c.warps)
      continue;
    by_class[size_t(in.op_class)] += c.warps;
    opcodes[in.opcode] += c.warps;
    instructions += c.warps;
    lanes += c.lanes;
    multiply_adds += double(in.flops) * double(c.warps);
    if (in.op_class == OpClass::Special)
      special_lanes += c.lanes;
    passes += c.wavefronts;
    conflicts += c.conflicts;
    if (c.conflicts)
      worst.push_back({c.conflicts, pc});
  }
  std::sort(worst.begin(), worst.end(), [](const Conflict &a, const Conflict &b) {
    return a.extra != b.extra ? a.extra > b.extra : a.pc < b.pc;
  });

  Json mix = Json::object(), by_opcode = Json::object(), banks = Json::array();
  for (int i = 0; i < kOpClasses; ++i)
    if (by_class[i])
      mix[opClassName(OpClass(i))] = by_class[i];
  std::vector<std::pair<uint64_t, std::string_view>> sorted;
  for (auto [name, n] : opcodes)
    sorted.push_back({n, name});
  std::sort(sorted.begin(), sorted.end(),
            [](auto &a, auto &b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  for (auto [n, name] : sorted)
    by_opcode[std::string(name)] = n;
  for (const Conflict &c : worst)
    banks.push_back({{"line", program.code[c.pc].at.line},
                     {"text", std::string(program.code[c.pc].text)},
                     {"executed", s.by_pc[c.pc].warps},
                     {"extra_passes", c.extra}});

  struct Unit {
    const char *name;
    double cycles;
  };
  const Unit units[] = {{"mma", multiply_adds / rates.multiply_adds},
                        {"exp", double(special_lanes) / rates.special},
                        {"shared_memory", double(passes) * 128 / rates.shared_bytes},
                        {"issue", double(instructions) / rates.issue}};
  Json cycles = Json::object();
  const Unit *most = &units[0];
  for (const Unit &u : units) {
    cycles[u.name] = u.cycles;
    if (u.cycles > most->cycles)
      most = &u;
  }
  return {{"entry", program.entry},
          {"grid", config.grid},
          {"block", config.block},
          {"shared_memory", program.dynamic_shared_offset + config.dynamic_shared},
          {"warp_instructions", instructions},
          {"active_lanes", instructions ? double(lanes) / double(instructions) : 0.0},
          {"mix", std::move(mix)},
          {"opcodes", std::move(by_opcode)},
          {"bytes",
           {{"global_read", s.global_read},
            {"global_written", s.global_written},
            {"l2_read", s.global_sectors_read * 32},
            {"l2_written", s.global_sectors_written * 32},
            {"shared_read", s.shared_read},
            {"shared_written", s.shared_written}}},
          {"multiply_adds", multiply_adds},
          {"special_functions", special_lanes},
          {"shared_passes", passes},
          {"bank_conflict_passes", conflicts},
          {"cycles", std::move(cycles)},
          {"limiter", most->name},
          {"bank_conflicts", std::move(banks)}};
}

} // namespace flashplus::emu
