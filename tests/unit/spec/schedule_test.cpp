// SPDX-License-Identifier: BSD-3-Clause
#include "spec/schedule.h"

#include <doctest/doctest.h>

using namespace flashplus;

TEST_CASE("schedule: text and back") {
  const Schedule schedule{"sm80.flash", {{"warps", 4}, {"tile_n", 64}, {"tile_m", 128}, {"bias", -3}}};
  CHECK(schedule.text() == "sm80.flash bias=-3 tile_m=128 tile_n=64 warps=4");
  auto back = Schedule::parse(schedule.text());
  REQUIRE(back.isOk());
  CHECK(*back == schedule);
  CHECK(back->get("tile_m") == 128);
  CHECK(back->get("absent") == 0);
  CHECK(Schedule::parse("cpu.flash")->knobs.empty());
}

TEST_CASE("schedule: parse errors say what is wrong") {
  auto error = [](std::string_view text) {
    auto schedule = Schedule::parse(text);
    REQUIRE_FALSE(schedule.isOk());
    CHECK(schedule.status().code() == StatusCode::InvalidArgument);
    return schedule.status().message();
  };
  auto contains = [](const std::string &text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(contains(error(""), "the algorithm is not a name"));
  CHECK(contains(error("CPU tile_m=1"), "the algorithm is not a name"));
  CHECK(contains(error("cpu tile_m"), "'tile_m' is not name=integer"));
  CHECK(contains(error("cpu tile_m="), "'tile_m=' is not name=integer"));
  CHECK(contains(error("cpu tile_m=1x"), "'tile_m=1x' is not name=integer"));
  CHECK(contains(error("cpu tile_m=99999999999"), "is not name=integer"));
  CHECK(contains(error("cpu =1"), "'=1' is not name=integer"));
  CHECK(contains(error("cpu a=1 a=1"), "'a' appears twice"));
  CHECK(contains(error("cpu  a=1"), "'' is not name=integer"));
}
