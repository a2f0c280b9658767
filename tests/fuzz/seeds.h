// SPDX-License-Identifier: BSD-3-Clause
// Good inputs to start from, made by the target itself, so that no binary files are kept and none goes stale
// when a format changes. A target defines seeds(); they are written to its corpus folder before libFuzzer
// reads it.
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Defined by each target.
std::vector<std::string> seeds();

template <class Bytes> std::string seedOf(const Bytes &bytes) {
  return std::string(reinterpret_cast<const char *>(bytes.data()), bytes.size());
}

extern "C" inline __attribute__((used)) int LLVMFuzzerInitialize(int *argc, char ***argv) {
  if (*argc < 2 || (*argv)[*argc - 1][0] == '-')
    return 0; // no corpus folder
  int number = 0;
  for (const std::string &seed : seeds())
    std::ofstream((*argv)[*argc - 1] + ("/seed-" + std::to_string(number++)), std::ios::binary) << seed;
  return 0;
}
