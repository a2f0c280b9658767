// SPDX-License-Identifier: BSD-3-Clause
// Running a decoded program: a grid of CTAs, each with warps of 32 lanes that execute as vectors.
#pragma once

#include "emulator/core/fault.h"
#include "emulator/core/memory.h"
#include "emulator/core/program.h"

#include <array>
#include <optional>
#include <span>
#include <vector>

namespace flashplus::emu {

/// When asynchronous copies land, within what the rules allow. The checks are the same in all modes: a
/// destination may not be touched before its wait.
enum class AsyncMode : uint8_t {
  Late,   ///< When something waits for them.
  Eager,  ///< At once.
  Random, ///< Either, by the seed.
};

struct Options {
  AsyncMode async = AsyncMode::Late;
  uint64_t seed = 1;
  int threads = 1;                         ///< Host threads; CTAs are shared out among them.
  uint64_t step_limit = uint64_t(1) << 34; ///< Warp instructions of one CTA.
  uint32_t shared_limit = 227 * 1024;      ///< Bytes a CTA may use.
};

struct LaunchConfig {
  std::array<uint32_t, 3> grid{1, 1, 1}, block{32, 1, 1};
  std::array<uint32_t, 3> cluster{0, 0, 0}; ///< CTAs; 0: as the entry requires, else 1.
  uint32_t dynamic_shared = 0;
  std::span<const uint8_t> params; ///< The parameter block, laid out as Program::params says.
};

/// Of one instruction, summed over all warps.
struct InstructionCount {
  uint64_t warps = 0; ///< Times a warp executed it with at least one lane.
  uint64_t lanes = 0;
  uint64_t wavefronts = 0; ///< Passes through shared memory.
  uint64_t conflicts = 0;  ///< Of these, the ones that other banks' addresses would not have needed.
};

struct Statistics {
  std::vector<InstructionCount> by_pc;
  uint64_t global_read = 0, global_written = 0; ///< Bytes that lanes asked for.
  uint64_t global_sectors_read = 0,
           global_sectors_written = 0; ///< 32-byte sectors per warp instruction: L2 traffic.
  uint64_t shared_read = 0, shared_written = 0;
  uint64_t ctas = 0;
  void add(const Statistics &other);
};

struct LaunchResult {
  std::optional<Fault> fault; ///< The first; nothing that ran after it counts.
  Statistics statistics;
};

/// Runs the grid. Blocking. Thread-safe as long as `memory` is not changed meanwhile.
LaunchResult launch(const Program &program, GlobalMemory &memory, const LaunchConfig &config,
                    const Options &options);

} // namespace flashplus::emu
