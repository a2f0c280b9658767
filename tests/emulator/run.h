// SPDX-License-Identifier: BSD-3-Clause
// Running PTX text on the emulator.
#pragma once

#include "emulator/core/machine.h"
#include "emulator/core/tensor_map.h"
#include "tests/emulator/cases.h"

namespace flashplus::emu::test {

struct Ran {
  std::string error; ///< Parse or decode failure, or the fault's text; empty if all was well.
  std::optional<Fault> fault;
  Statistics statistics;
  std::vector<uint8_t> output;
};

/// What the memory of an output holds before the kernel writes to it.
inline constexpr uint8_t kUntouched = 0xcd;

/// `map` takes the place of the case's own.
Ran run(const Case &c, const Options &options = {}, const TensorMapContents *map = nullptr);

} // namespace flashplus::emu::test
