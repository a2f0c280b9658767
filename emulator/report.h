// SPDX-License-Identifier: BSD-3-Clause
// From counts to what a person wants to know of a launch.
#pragma once

#include "emulator/core/machine.h"

#include <nlohmann/json.hpp>

namespace flashplus::emu {

/// Rates of one SM per cycle. The model is the roofline of a Hopper SM: 4096 dense 16-bit FLOP, 16 special
/// functions, 128 bytes of shared memory, 4 warp instructions.
struct SmRates {
  double multiply_adds = 2048;
  double special = 16;
  double shared_bytes = 128;
  double issue = 4;
};

/// {"entry", "grid", "block", "instructions": {class: warp instructions}, "bytes": {...}, "cycles": {...},
/// "limiter",
///  "bank_conflicts": [{"line", "text", "executed", "extra_passes"}]}
/// `cycles` are those of one SM that ran the whole launch alone, each unit for itself.
nlohmann::ordered_json describeLaunch(const Program &program, const LaunchConfig &config,
                                      const Statistics &statistics, const SmRates &rates = {});

} // namespace flashplus::emu
