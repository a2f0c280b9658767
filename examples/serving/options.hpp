// SPDX-License-Identifier: BSD-3-Clause
// The flags of serve.cpp.
#pragma once

#include "requests.hpp"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace serving {

struct Options {
  std::string device = "auto";
  int64_t steps = 100, seed = 7;
  bool check = false, help = false;
  Limits limits;

  /// Reads the command line; a sentence that says what is wrong with it, or "".
  std::string read(int argc, char **argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string flag = argv[i];
      if (flag == "--help")
        return help = true, "";
      if (flag == "--check") {
        check = true;
        continue;
      }
      if (!known(flag))
        return "'" + flag + "' is not known; --help lists what is";
      if (++i == argc)
        return flag + " has no value";
      if (auto problem = set(flag, argv[i]); !problem.empty())
        return problem;
    }
    if (limits.tokens < limits.batch)
      return "--tokens is " + std::to_string(limits.tokens) + "; it must be at least --batch, " +
             std::to_string(limits.batch) + ", a token for each sequence";
    return "";
  }

  static const char *text() {
    return "usage: serve [flags]\n"
           "  --device WHERE   cpu, cuda, emulator, or auto: the GPU if there is one, else the CPU (auto)\n"
           "  --steps N        steps to serve (100)\n"
           "  --check          compare every sequence's last output of each step with a plain loop\n"
           "  --seed N         of the requests (7)\n"
           "  --batch N        sequences a step, at most (8)\n"
           "  --tokens N       tokens a step, at most (64)\n"
           "  --page N         tokens a page of the cache (16)\n"
           "  --prompt N       tokens of the longest prompt (96)\n"
           "  --output N       tokens of the longest answer (48)\n";
  }

private:
  static bool known(const std::string &flag) {
    for (const char *name :
         {"--device", "--steps", "--seed", "--batch", "--tokens", "--page", "--prompt", "--output"})
      if (flag == name)
        return true;
    return false;
  }

  std::string set(const std::string &flag, const std::string &value) {
    if (flag == "--device") {
      device = value;
      const bool good = value == "cpu" || value == "cuda" || value == "emulator" || value == "auto";
      return good ? "" : "--device is '" + value + "'; it must be cpu, cuda, emulator or auto";
    }
    if (flag == "--steps")
      return number(flag, value, 1, 1000000000, steps);
    if (flag == "--seed")
      return number(flag, value, 0, 0xffffffff, seed);
    int32_t &limit = flag == "--batch"    ? limits.batch
                     : flag == "--tokens" ? limits.tokens
                     : flag == "--page"   ? limits.page_size
                     : flag == "--prompt" ? limits.prompt
                                          : limits.output;
    int64_t read = 0;
    const std::string problem =
        number(flag, value, 1, flag == "--batch" || flag == "--page" ? 1024 : 65536, read);
    limit = int32_t(read);
    return problem;
  }

  static std::string number(const std::string &flag, const std::string &value, int64_t least, int64_t most,
                            int64_t &to) {
    char *end = nullptr;
    errno = 0;
    to = std::strtoll(value.c_str(), &end, 10);
    if (!value.empty() && *end == 0 && errno == 0 && to >= least && to <= most)
      return "";
    return flag + " is '" + value + "'; it must be a whole number from " + std::to_string(least) + " to " +
           std::to_string(most);
  }
};

} // namespace serving
