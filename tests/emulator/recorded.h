// SPDX-License-Identifier: BSD-3-Clause
// The file of results that a GPU gave: made by `emulator_record`, kept in data/.
//
// Text, a line each:  # comment | <case name> <hash of its PTX and input> <hash of the output> [<output>],
// all in hex. The output itself is kept for cases that are compared with a tolerance; for the others its hash
// is enough.
#pragma once

#include "tests/emulator/cases.h"

#include <map>

namespace flashplus::emu::test {

struct Recorded {
  struct Result {
    uint64_t input_hash = 0, output_hash = 0;
    std::vector<uint8_t> output; ///< Empty for exact cases.
  };
  std::map<std::string, Result> results;
  std::string error; ///< Not empty: the file is damaged. A missing file is no error.
};

Recorded readRecorded(const std::string &path);
/// False if the file cannot be written. `comment` says which GPU and driver.
bool writeRecorded(const std::string &path, const Recorded &recorded, const std::string &comment);
/// Of the case's PTX, input and shape: FNV-1a.
uint64_t hashOf(const Case &c);
uint64_t hashOf(std::span<const uint8_t> bytes);
/// Empty if `output` agrees with what was recorded.
std::string compare(const Case &c, std::span<const uint8_t> output, const Recorded::Result &recorded);

} // namespace flashplus::emu::test
