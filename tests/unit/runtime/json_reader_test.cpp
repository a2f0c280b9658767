// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/tuning_record.h"
#include "spec/json_reader.h"
#include "tests/tools/temporary.h"

#include <chrono>
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace flashplus;
using Json = nlohmann::json;

namespace {

struct Read {
  Json value;
  std::string problem;
};
Read read(std::string_view text, const JsonRules &rules = {}) {
  Read out;
  out.value = JsonReader::parse(text, rules, out.problem);
  return out;
}

} // namespace

TEST_CASE("json: what is read is what nlohmann's parser reads") {
  for (const char *text :
       {"{}", "[]", "null", "true", "-3", "18446744073709551615", "1.5e3", R"("a\u00e9\n")", "[[],{},[[]]]",
        R"({"a":[1,{"b":null,"c":[true,false,"x"]},-2.5],"d":{"a":{}},"":0})", R"({"a":1,"a":[2,{"b":3}]})",
        "", "{", "[1,", "[1]x", "{\"a\"}", "\"\xff\"", "[1e999]", "nul"}) {
    CAPTURE(std::string(text));
    const Json wanted = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    CHECK(read(text).value.is_discarded() == wanted.is_discarded());
    if (!wanted.is_discarded())
      CHECK(read(text).value == wanted);
    CHECK(read(text).problem.empty());
  }
}

TEST_CASE("json: rules") {
  CHECK(read(R"({"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]})", {.unique_keys = true}).problem.empty());
  const Read twice = read(R"({"b":[{"a\u0001":1,"a\u0001":2}]})", {.unique_keys = true});
  CHECK(twice.value.is_discarded());
  CHECK(twice.problem == "key 'a?' occurs twice");
  CHECK(read("[[[]]]", {.most_depth = 3}).problem.empty());
  CHECK(read("[[[{}]]]", {.most_depth = 3}).problem == "nested deeper than 3 levels");
  CHECK(read(std::string(1'000'000, '['), {.most_depth = 3}).problem == "nested deeper than 3 levels");
  const JsonRules no_timed{.most_depth = 4, .left_out = "timed"};
  CHECK(read(R"({"timed":1,"a":{"timed":[{"b":2},[]],"c":3},"timed":{}})", no_timed).value ==
        R"({"a":{"c":3}})"_json);
  CHECK(read(R"([{"timed":{"timed":{}}},4])", no_timed).value == R"([{},4])"_json);
  CHECK(read(R"({"timed":[[[[]]]]})", no_timed).problem == "nested deeper than 4 levels"); // inside it, too
}

TEST_CASE("json: a tuning record costs no more than its size, whatever is in it") {
  const auto start = std::chrono::steady_clock::now();
  for (const char *item : {"{}", "[]", "0", R"({"timed":[]})"}) {
    std::string text = R"({"format":"flashplus-tuning 1","device":{"target":"x86-64-v3"},"cells":[0)";
    while (text.size() < size_t(kMostTuningBytes) / 16)
      text += std::string(",") + item;
    const auto record = parseTuningRecord(text + "]}", "t", TuningDetail::Best);
    REQUIRE_FALSE(record.isOk());
    CHECK(record.status().message().find("at most 4096 are allowed") != std::string::npos);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(took.count() < 20); // half a second; a quadratic one does not end in that
}

TEST_CASE("tuning records: what is no file is left out, and nobody waits for it") {
  test::TemporaryFolder folder;
  const std::string fifo = folder.path("r.json");
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  for (const std::string &named : {fifo, folder.path(), std::string("/dev/zero")}) {
    ::alarm(20); // ends this process if it waits
    std::vector<std::string> told;
    TuningRecords::read(named, [&](const std::string &line) { told.push_back(line); });
    ::alarm(0);
    REQUIRE(told.size() == 1);
    CHECK(told[0] == "tuning record " + (named == folder.path() ? fifo : named) +
                         " is left out: it can't be read or is no regular file");
  }
}
