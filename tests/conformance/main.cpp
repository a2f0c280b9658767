// SPDX-License-Identifier: BSD-3-Clause
// conformance [--device cpu|cuda[:N]|emulator[:1]] [--cache-dir DIR] [--large] [--cases all|pairs] [doctest
// options] Runs the suite on one device; the only place that knows which. Exit status 77: the device is not
// there. Of doctest's options: --list-test-cases, --test-suite=mask, --test-case='*causal*'.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tests/conformance/session.h"

#include <cstdio>

int main(int argc, char **argv) {
  using namespace flashplus::conformance;
  Options options;
  std::vector<char *> rest = {argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--large") {
      options.large = true;
    } else if (flag == "--device" || flag == "--cache-dir" || flag == "--cases") {
      if (i + 1 == argc) {
        std::fprintf(stderr, "%s needs a value\n", flag.c_str());
        return 2;
      }
      const std::string value = argv[++i];
      if (flag != "--cases") {
        (flag == "--device" ? options.device : options.cache_dir) = value;
      } else if (value == "all" || value == "pairs") {
        options.cases = value == "all" ? Options::Cases::All : Options::Cases::Pairs;
      } else {
        std::fprintf(stderr, "--cases is '%s'; it must be all or pairs\n", value.c_str());
        return 2;
      }
    } else {
      rest.push_back(argv[i]);
    }
  }
  doctest::Context context(int(rest.size()), rest.data());
  std::string error;
  if (flashplus_status status = Session::get().start(options, error); status != FLASHPLUS_OK) {
    std::fprintf(stderr, "conformance on %s %s: %s\n", options.device.c_str(),
                 status == FLASHPLUS_NO_DEVICE ? "skipped" : "could not start", error.c_str());
    return status == FLASHPLUS_NO_DEVICE ? 77 : 2;
  }
  const int result = context.run();
  if (!context.shouldExit())
    std::fputs(Session::get().summary().c_str(), stdout);
  Session::get().stop();
  return result;
}
