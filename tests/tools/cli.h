// SPDX-License-Identifier: BSD-3-Clause
// Runs the built `flashplus` as a user would.
#pragma once

#include "tests/tools/temporary.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace flashplus::test {

struct CliResult {
  int code = -1; ///< Exit status; 128 + n when signal n ended it.
  std::string out, err;
  nlohmann::json json() const { return nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false); }
};

/// Runs $FLASHPLUS_CLI with `arguments`, its cache in `cache_dir` ("" for none).
CliResult runCli(const std::vector<std::string> &arguments, const std::string &cache_dir = "");

/// A file of tests/data.
std::string dataFile(const std::string &name);

} // namespace flashplus::test
