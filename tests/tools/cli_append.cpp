// SPDX-License-Identifier: BSD-3-Clause
// New keys from the command line: run, warmup and inspect of an append.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <algorithm>

using namespace flashplus;
using nlohmann::json;
using test::runCli;

namespace {

void refused(const std::vector<std::string> &arguments, const std::string &text) {
  auto result = runCli(arguments);
  INFO(result.err);
  CHECK(result.code == 2);
  CHECK(result.out == "");
  CHECK(result.err.find(text) != std::string::npos);
}

} // namespace

TEST_CASE("bad usage of an append names the flag") {
  refused({"run", "--random", "1,1,8,1,1,16", "--device", "cpu", "--append", "9"},
          "--append 9: must be at most 8, the rows of k");
  refused({"run", "--random", "1,1,8,1,1,16", "--device", "cpu", "--append", "1", "--rotary", "18"},
          "--rotary 18: must be even and at most 16");
  refused({"run", "--random", "1,1,8,1,1,16", "--device", "cpu", "--append", "1", "--rotary", "7"},
          "--rotary 7");
  refused({"run", "--random", "1,1,8,1,1,16", "--rotary", "16"},
          "--rotary and --rotary-interleaved: only with");
  refused({"run", "--random", "1,1,8,1,1,16", "--append", "1", "--backward"},
          "--append: not with --backward");
  refused({"run", "--random", "1,1,8,1,1,16", "--append", "-1"}, "--append");
}

TEST_CASE("an append is run, and held against the reference with its cache") {
  for (const char *more : {"", "--rotary-interleaved", "--page-size=16"}) {
    std::vector<std::string> arguments = {
        "run",      "--random", "2,3,70,4,2,64", "--dtype", "fp32",     "--causal", "--append", "5",
        "--rotary", "48",       "--device",      "cpu",     "--repeat", "0",        "--check",  "--json"};
    if (*more)
      arguments.push_back(more);
    auto result = runCli(arguments);
    REQUIRE_MESSAGE(result.code == 0, result.err << result.out);
    const json found = json::parse(result.out);
    CHECK(found["check"]["good"] == true);
    CHECK(found["check"]["cache"] == "");
    REQUIRE(found["plan"]["steps"].size() >= 2);
    CHECK(found["plan"]["steps"][0]["spec"] == "append dtype=fp32 dqk=64 dv=64 align=4");
  }
}

TEST_CASE("warm-up and inspection know its kernel") {
  auto kernels = [](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"warmup", "--target", "x86-64-v3", "--head-dim", "64",    "--dtype",
                                          "bf16",   "--causal", "yes",       "--dry-run",  "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto result = runCli(arguments);
    INFO(result.err);
    const json found = json::parse(result.out);
    std::vector<std::string> specs;
    for (const json &kernel : found["kernels"])
      specs.push_back(kernel["spec"]);
    return specs;
  };
  const auto plain = kernels({}), serving = kernels({"--append"});
  CHECK(serving.size() == plain.size() + 1);
  CHECK(std::ranges::count(serving, "append dtype=bf16 dqk=64 dv=64 align=2") == 1);
  auto text = runCli(
      {"inspect", "--stage", "attn", "--head-dim", "64", "--operation", "append", "--target", "sm_80"});
  CHECK_MESSAGE(text.code == 0, text.err);
  CHECK(text.out.find("attn.append") != std::string::npos);
}
