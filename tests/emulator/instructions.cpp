// SPDX-License-Identifier: BSD-3-Clause
// Every case of the table, by the definition and, where there is one, by what a GPU gave (data/, made by
// record.cpp).
#include "tests/emulator/recorded.h"
#include "tests/emulator/run.h"

#include <doctest/doctest.h>
#include <set>

using namespace flashplus::emu;
using namespace flashplus::emu::test;

TEST_CASE("instructions give what the PTX ISA defines") {
  std::set<std::string> names;
  for (const Case &c : allCases()) {
    INFO(c.name);
    CHECK_MESSAGE(names.insert(c.name).second, "two cases have this name");
    std::vector<uint8_t> want(c.output_bytes, kUntouched);
    c.expect(c.input, want);
    for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Eager, AsyncMode::Random}) {
      Options options;
      options.async = mode;
      options.threads = mode == AsyncMode::Random ? 3 : 1;
      const Ran ran = run(c, options);
      CHECK(ran.error == "");
      if (ran.error.empty())
        CHECK(compare(c, ran.output, want) == "");
    }
  }
  CHECK(names.size() > 200);
}

TEST_CASE("instructions give what a GPU gave") {
  const Recorded recorded = readRecorded(FLASHPLUS_RECORDED_DATA);
  REQUIRE(recorded.error == "");
  if (recorded.results.empty()) {
    MESSAGE("no results have been recorded on a GPU");
    return;
  }
  std::string unrecorded;
  int count = 0;
  for (const Case &c : allCases()) {
    INFO(c.name);
    const auto it = recorded.results.find(c.name);
    if (it == recorded.results.end()) {
      ++count;
      unrecorded += " " + c.name;
      continue;
    }
    CHECK_MESSAGE(it->second.input_hash == hashOf(c), "the case has changed since it was recorded");
    const Ran ran = run(c);
    CHECK(ran.error == "");
    CHECK(compare(c, ran.output, it->second) == "");
  }
  if (count)
    MESSAGE(count << " cases have not been recorded on a GPU (data/README.md):" << unrecorded);
}
