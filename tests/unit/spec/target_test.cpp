// SPDX-License-Identifier: BSD-3-Clause
#include "spec/target.h"

#include <doctest/doctest.h>

using namespace flashplus;

TEST_CASE("target: every pair of the table has a text that brings it back") {
  for (const IsaInfo &row : isaTable()) {
    CHECK(&isaInfo(row.isa) == &row);
    if (!isGpu(row.isa)) {
      const Target target{row.isa, 0};
      CHECK(target.text() == row.name);
      CHECK(*Target::parse(target.text()) == target);
      CHECK(target.sharedMemoryPerBlock() == 0);
      continue;
    }
    CHECK_FALSE(row.chips.empty());
    for (int chip : row.chips) {
      const Target target{row.isa, chip};
      CHECK(target.text() == std::string(row.name) + "@" + target.chipName());
      auto back = Target::parse(target.text());
      REQUIRE(back.isOk());
      CHECK(*back == target);
      CHECK(target.sharedMemoryPerBlock() >= 99 * 1024);
    }
  }
}

TEST_CASE("target: a GPU target alone means its own chip") {
  CHECK(*Target::parse("sm_80") == Target{Isa::Sm80, 80});
  CHECK(Target{Isa::Sm80, 80}.sharedMemoryPerBlock() == 163 * 1024);
  CHECK(Target{Isa::Sm80, 89}.sharedMemoryPerBlock() == 99 * 1024);
  CHECK(Target{Isa::Sm80, 90}.sharedMemoryPerBlock() == 227 * 1024);
  CHECK(*Target::parse("sm_90a") == Target{Isa::Sm90a, 90});
  CHECK(*Target::parse("sm_90a@sm_90a") == Target{Isa::Sm90a, 90});
  CHECK(Target{Isa::Sm90a, 90}.text() == "sm_90a@sm_90a");
}

TEST_CASE("target: parse errors list what there is") {
  auto error = [](std::string_view text) {
    auto target = Target::parse(text);
    REQUIRE_FALSE(target.isOk());
    CHECK(target.status().code() == StatusCode::InvalidArgument);
    return target.status().message();
  };
  auto contains = [](const std::string &text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(contains(error(""), "it must be one of x86-64-v3, x86-64-v4, x86-64-v4+avx512bf16, sm_80"));
  CHECK(contains(error("sm_70"), "'sm_70' is not known"));
  CHECK(contains(error("x86-64-v3@sm_80"), "is not known"));
  CHECK(contains(error("sm_80@sm_75"), "must be one of sm_80, sm_86"));
  CHECK(contains(error("sm_80@"), "must be one of sm_80"));
  CHECK(contains(error("sm_80@sm_90a"), "must be one of sm_80"));
  CHECK(contains(error("sm_90a@sm_90"), "must be one of sm_90a"));
  CHECK(contains(error("sm_90a@sm_100a"), "must be one of sm_90a"));
}
