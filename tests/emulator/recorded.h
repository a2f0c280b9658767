// SPDX-License-Identifier: BSD-3-Clause
// The file of results that a GPU gave: made by `emulator_record`, kept in data/.
//
// Text, a line each:  # comment | <case name> <hash of its PTX and input, hex> <output bytes, hex>
#pragma once

#include "tests/emulator/cases.h"

#include <map>

namespace flashplus::emu::test {

struct Recorded {
  struct Result {
    uint64_t input_hash = 0;
    std::vector<uint8_t> output;
  };
  std::map<std::string, Result> results;
  std::string error; ///< Not empty: the file is damaged. A missing file is no error.
};

Recorded readRecorded(const std::string &path);
/// False if the file cannot be written. `comment` says which GPU and driver.
bool writeRecorded(const std::string &path, const Recorded &recorded, const std::string &comment);
/// Of the case's PTX, input and shape: FNV-1a.
uint64_t hashOf(const Case &c);

} // namespace flashplus::emu::test
