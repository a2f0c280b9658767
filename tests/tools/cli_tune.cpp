// SPDX-License-Identifier: BSD-3-Clause
// `flashplus bench` and `flashplus tune` on the CPU, with tiny problems; the committed default tables.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"
#include "tools/io/npy.h"

#include <cstdlib>

using namespace flashplus;
using nlohmann::json;
using test::runCli;

namespace {

std::string repository(const std::string &path) { return test::dataFile("../../" + path); }

json parse(const std::string &path) { return json::parse(test::readText(path), nullptr, false); }

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

} // namespace

TEST_CASE("the default tables are what the committed records say, bit for bit") {
  test::TemporaryFolder folder;
  for (std::string family : {"sm80", "sm90"}) {
    const std::string made = folder.path(family + ".inc");
    auto result = runCli({"tune", "--table", family + ".flash", "--record",
                          repository("tuning/h200_" + family + ".json"), "-o", made});
    INFO(result.err);
    REQUIRE(result.code == 0);
    CHECK(test::readText(made) ==
          test::readText(repository("templates/forward/" + family + "_flash/table.inc")));
  }
}

TEST_CASE("a table takes another schedule for a length only where it brings enough") {
  test::TemporaryFolder folder;
  const std::string record = folder.path("record.json");
  auto cell = [](int keys, double a, double b) {
    return json{{"spec", "forward dtype=bf16 dqk=64 dv=64 left=0 right=0 split=0 align=16 score={s}"},
                {"queries", keys},
                {"keys", keys},
                {"best", "sm90.flash tile_m=128"},
                {"timed",
                 {{{"schedule", "sm90.flash tile_m=128"}, {"ratio", a}},
                  {{"schedule", "sm90.flash tile_m=128 stages=3"}, {"ratio", b}}}}};
  };
  auto rows = [&](std::vector<json> cells) {
    test::writeText(record, json{{"format", "flashplus-tuning 1"},
                                 {"device", {{"model", "m"}, {"target", "sm_90a"}}},
                                 {"cells", cells}}
                                .dump());
    auto result = runCli({"tune", "--table", "sm90.flash", "--record", record});
    INFO(result.err);
    REQUIRE(result.code == 0);
    return result.out.substr(result.out.find("    {"));
  };
  const std::string two = "stages=2 tile_m=128 tile_n=128\"},\n",
                    three = "stages=3 tile_m=128 tile_n=128\"},\n";
  const std::string start = "    {64, 64, false, ",
                    knobs = ", \"sm90.flash blocks=1 by_lengths=0 pingpong=0 q_stages=1 ";
  CHECK(rows({cell(512, 1, 1.1), cell(1024, 1.1, 1)}) ==
        start + "768" + knobs + two + start + "kAnyKeys" + knobs + three);
  CHECK(rows({cell(512, 1, 1.1), cell(1024, 1.01, 1)}) == start + "kAnyKeys" + knobs + two);
  auto nothing = runCli({"tune", "--table", "sm80.flash", "--record", record});
  CHECK(nothing.code == 2);
}

TEST_CASE("bench and tune: bad input names the flag") {
  auto refused = [](const std::vector<std::string> &arguments, const std::string &text) {
    auto result = runCli(arguments);
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(result.err.find(text) != std::string::npos);
  };
  refused({"bench", "--device", "cpu", "--shape", "1,2,3"}, "--shape '1,2,3': has 3 integers");
  refused({"bench", "--device", "cpu", "--shape", "1,2,2,3,2,16"}, "3 query heads can't share 2");
  refused({"bench", "--device", "cpu", "--head-dim", "300", "--seqlen", "16"},
          "head dim 300: must be 1 to 256");
  refused({"bench", "--device", "cpu", "--seqlen", "16,32,48", "--seqlen-k", "1,2"},
          "--seqlen-k: has 2 values");
  refused({"bench", "--device", "cpu", "--window", "3"}, "--window '3'");
  refused({"bench", "--suite", "soup"}, "--suite");
  refused({"bench", "--device", "cpu", "--baseline", "/nowhere.json"}, "--baseline: /nowhere.json");
  refused({"bench", "--overlay", "x.json"}, "--overlay: only with --plot");
  refused({"bench", "--plot", "x.svg", "--overlay", "/nowhere.json"}, "--overlay: /nowhere.json");
  refused({"tune", "--table", "sm90.flash"}, "--table and --record go together");
  const std::vector<std::string> tune = {"tune", "--device", "cpu", "--shape", "1,8,8,1,1,16"};
  refused(joined(tune, {"--knob", "tile_m"}), "--knob 'tile_m'");
  refused(joined(tune, {"--knob", "tile_mm=96"}), "--knob 'tile_mm': no schedule of these problems has it");
  refused(joined(tune, {"--knob", "tile_m=97"}), "--knob 'tile_m=97': no schedule of these problems");
  refused(joined(tune, {"--algorithm", "flash"}), "--algorithm 'flash': no schedule of these problems");
  refused(joined(tune, {"-o", "/"}), "--out: / cannot be written: it is a folder");
  refused(joined(tune, {"-o", "/dev/null/mine.json"}), "--out: /dev/null/mine.json cannot be written");
  refused({"bench", "--device", "cpu", "--plot", "x.png"}, "--plot: x.png must end in .svg");
  refused({"bench", "--device", "cpu", "--plot", "/dev/null/x.svg"}, "--plot: /dev/null/x.svg cannot be");
  refused({"bench", "--device", "cpu", "--json", "/dev/null/x.json"}, "--json: /dev/null/x.json cannot be");
  refused({"run", "--random", "1,8,8,1,1,16", "--out", "/dev/null/o.npy"}, "--out: /dev/null/o.npy cannot");
  test::TemporaryFolder folder;
  test::writeText(folder.path("no.json"), "{\"cells\": 3}");
  refused({"tune", "--table", "sm90.flash", "--record", folder.path("no.json")}, "is not a tuning record");
  refused({"bench", "--plot", folder.path("x.svg"), "--overlay", folder.path("no.json")}, "holds no cells");
}

TEST_CASE("a missing GPU is said, and is a failure where one was asked for") {
  auto result = runCli({"bench", "--device", "cuda:31", "--shape", "1,8,8,1,1,16"});
  CHECK(result.code == 1);
  CHECK(result.out == "");
  CHECK(result.err.find("flashplus: ") != std::string::npos);
}

TEST_CASE("a plot of files alone, peers included") {
  test::TemporaryFolder folder;
  auto result = runCli({"bench", "--plot", folder.path("a.svg"), "--overlay",
                        repository("bench/results/h200_forward_bf16.json"), "--overlay",
                        repository("bench/results/h200_sm80_forward_bf16.json")});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const std::string svg = test::readText(folder.path("a.svg"));
  CHECK(svg.starts_with("<svg xmlns="));
  CHECK(svg.ends_with("</svg>\n"));
  for (std::string text : {"NVIDIA H200", "D 64, full, bf16", "D 256, causal, bf16", ">cudnn<",
                           ">FlashAttention-Plus<", ">FlashAttention-Plus (h200_sm80_forward_bf16)<",
                           "sequence length", "TFLOP/s", ">16k<"})
    CHECK_MESSAGE(svg.find(text) != std::string::npos, text);
  CHECK(svg.find("gemm") == std::string::npos);
}

TEST_CASE("a plot of several machines' files says of each line which it is of") {
  test::TemporaryFolder folder;
  const std::string other = folder.path("other.json");
  test::writeText(other, R"({"device": {"model": "Some CPU"}, "cells": [{"head_dim": 64, "causal": false, )"
                         R"("seqlen": 512, "tflops": 2.5, "series": "ours"}]})");
  auto result = runCli({"bench", "--plot", folder.path("made/for/it/a.svg"), "--overlay",
                        repository("bench/results/h200_forward_bf16.json"), "--overlay", other});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const std::string svg = test::readText(folder.path("made/for/it/a.svg"));
  for (std::string text : {">FlashAttention-Plus (NVIDIA H200)<", ">FlashAttention-Plus (Some CPU)<",
                           ">cudnn (NVIDIA H200)<"})
    CHECK_MESSAGE(svg.find(text) != std::string::npos, text);
  CHECK(svg.find("ours") == std::string::npos);
}

#ifdef FLASHPLUS_HAS_COMPILER

TEST_CASE("tune prints what it found, makes the folder of its record, and says when nothing is kept") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), record = folder.path("not/there/mine.json");
  const std::vector<std::string> tune = {"tune",      "--device",  "cpu",    "--shape",        "1,8,8,1,1,16",
                                         "--knob",    "tile_m=12", "--knob", "mr=6",           "--knob",
                                         "tile_n=64", "--rounds",  "1",      "--milliseconds", "0.1"};
  auto kept = runCli(joined(tune, {"-o", record}), cache);
  INFO(kept.err);
  REQUIRE(kept.code == 0);
  CHECK(kept.out.find("written to " + record) != std::string::npos);
  CHECK(parse(record)["cells"].size() == 1);
  auto lost = runCli(tune, cache);
  CHECK(lost.code == 0);
  CHECK(lost.out.find("FLOP/s") != std::string::npos);
  CHECK(lost.err.find("nothing was kept; -o FILE") != std::string::npos);
  auto plan = runCli(joined(tune, {"--dry-run", "--json"}), cache);
  REQUIRE(plan.code == 0);
  CHECK(json::parse(plan.out)["kernels"].get<int>() > 0);
}

TEST_CASE("bench: a grid, its file, a baseline, forced schedules, a picture") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), file = folder.path("a.json");
  const std::vector<std::string> grid = {"bench", "--device", "cpu", "--head-dim",     "16,32/24", "--seqlen",
                                         "17,32", "--causal", "0,1", "--tokens",       "64",       "--hidden",
                                         "64",    "--rounds", "3",   "--milliseconds", "0.1"};
  auto first = runCli(joined(grid, {"--json", file, "--plot", folder.path("a.svg")}), cache);
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("D32/24 causal S17 B3 H2 bf16") != std::string::npos);
  const json result = parse(file);
  CHECK(result["format"] == "flashplus-bench 1");
  CHECK(result["device"]["model"].get<std::string>() != "");
  CHECK(result["build"].get<std::string>().size() == 32);
  CHECK(result["date"].get<std::string>().size() == 20);
  REQUIRE(result["cells"].size() == 8);
  CHECK(result["clocks"].size() == 3);
  for (const json &cell : result["cells"]) {
    CHECK(cell["seconds"].size() == 3);
    CHECK(cell["tflops"].get<double>() > 0);
    CHECK(cell["schedule_source"] == "default table");
    // Counted pair by pair: 17 rows see 1 to 17 keys under the causal mask.
    const double b = cell["batch"], h = cell["heads"], s = cell["seqlen"];
    const double pairs = cell["causal"].get<bool>() ? s * (s + 1) / 2 : s * s;
    CHECK(cell["flops"].get<double>() ==
          2 * b * h * pairs * (cell["head_dim"].get<double>() + cell["head_dim_v"].get<double>()));
  }
  CHECK(test::readText(folder.path("a.svg")).find("D 32/24, causal, bf16") != std::string::npos);

  auto again = runCli(joined(grid, {"--baseline", file, "--json"}), cache);
  REQUIRE(again.code == 0);
  const json changes = again.json();
  REQUIRE(changes["cells"].size() == 8);
  for (const json &cell : changes["cells"])
    CHECK(cell.contains("change_percent"));
  auto text = runCli(joined(grid, {"--baseline", file}), cache);
  CHECK(text.out.find(" %\n") != std::string::npos);
  CHECK(text.out.find("change") != std::string::npos);

  auto forced = runCli({"bench", "--device", "cpu", "--shape", "1,64,64,1,1,16", "--rounds", "2",
                        "--milliseconds", "0.1", "--schedule", "tile_m=12", "--schedule",
                        "cpu.flash mr=6 nr=2 pairs=0 tile_m=48 tile_n=64", "--json"},
                       cache);
  INFO(forced.err);
  REQUIRE(forced.code == 0);
  const json cells = forced.json()["cells"];
  REQUIRE(cells.size() == 2);
  CHECK(cells[0]["schedule"].get<std::string>().find("tile_m=12 ") != std::string::npos);
  CHECK(cells[0]["schedule_source"] == "forced");
  CHECK(cells[1]["schedule"] == "cpu.flash mr=6 nr=2 pairs=0 tile_m=48 tile_n=64");
  auto wrong =
      runCli({"bench", "--device", "cpu", "--shape", "1,64,64,1,1,16", "--schedule", "tile_m=13"}, cache);
  CHECK(wrong.code == 1);
  CHECK(wrong.err.find("tile_m is 13; it must be") != std::string::npos);
}

TEST_CASE("bench --suite features: each beside its dense problem") {
  test::TemporaryFolder folder;
  auto result = runCli({"bench", "--suite", "features", "--device", "cpu", "--tokens", "64", "--hidden",
                        "128", "--rounds", "2", "--milliseconds", "0.1", "--json"},
                       folder.path("cache"));
  INFO(result.err);
  REQUIRE(result.code == 0);
  int features = 0;
  const json suite = result.json();
  for (const json &cell : suite["cells"]) {
    features += cell.contains("share_of_dense");
    if (cell.contains("share_of_dense"))
      CHECK(cell["share_of_dense"].get<double>() > 0);
  }
  CHECK(features == 11);
}

TEST_CASE("tune: a record that later plans take, and that can do no harm") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), record = cache + "/tuning/mine.json";
  // With the cache's folder made by a first run, as it is for a user.
  const std::vector<std::string> run = {"run",      "--random", "1,48,48,2,2,16", "--device", "cpu",
                                        "--repeat", "0",        "--check",        "--json"};
  CHECK(runCli(run, cache).json()["plan"]["schedule_source"] == "default table");
  REQUIRE(std::system(("mkdir " + cache + "/tuning").c_str()) == 0);
  // Only tiles that the default table has not for this, so that the choice shows.
  auto tuned = runCli({"tune",
                       "--device",
                       "cpu",
                       "--shape",
                       "1,48,48,2,2,16",
                       "--knob",
                       "tile_m=24,48",
                       "--knob",
                       "tile_n=32,64",
                       "--knob",
                       "mr=4,6",
                       "--knob",
                       "nr=2",
                       "--knob",
                       "pairs=0",
                       "--rounds",
                       "3",
                       "--coarse-rounds",
                       "1",
                       "--milliseconds",
                       "0.1",
                       "-o",
                       record},
                      cache);
  INFO(tuned.err);
  REQUIRE(tuned.code == 0);
  json made = parse(record);
  CHECK(made["format"] == "flashplus-tuning 1");
  REQUIRE(made["cells"].size() == 1);
  CHECK(made["cells"][0]["timed"].size() == 9); // and what the library takes by itself
  CHECK(made["cells"][0]["timed"][0]["ratios"].size() >= 3);
  CHECK(made["cells"][0]["best"] == made["cells"][0]["timed"][0]["schedule"]);
  made["cells"][0]["best"] = "cpu.flash mr=4 nr=2 pairs=0 tile_m=24 tile_n=32";
  test::writeText(record, made.dump());

  auto plan = [&](std::vector<std::string> arguments = {}, std::string *err = nullptr) {
    auto result = runCli(arguments.empty() ? run : arguments, cache);
    INFO(result.err);
    REQUIRE(result.code == 0);
    if (err)
      *err = result.err;
    CHECK(result.json()["check"]["good"] == true);
    return result.json()["plan"];
  };
  CHECK(plan()["schedule_source"] == record);
  CHECK(plan()["steps"][0]["schedule"] == made["cells"][0]["best"]);
  auto spec = runCli({"inspect", "--stage", "spec", "--head-dim", "16"}, cache);
  CHECK(spec.out.find("default table") != std::string::npos);
  CHECK(spec.out.find("record    " + record) != std::string::npos);
  // Another spec, and one row, for which the record's tile is too tall.
  for (std::string shape : {"1,48,48,2,2,40", "1,1,48,2,2,16"}) {
    auto other = run;
    other[2] = shape;
    CHECK(plan(other)["schedule_source"] == "default table");
  }
  // Warmed with the record, nothing compiles.
  REQUIRE(
      runCli({"warmup", "--target", "cpu", "--head-dim", "16", "--dtype", "bf16", "--causal", "no"}, cache)
          .code == 0);
  CHECK(runCli(run, cache).json()["from"] == "disk");

  ::setenv("FLASHPLUS_TUNING", "off", 1);
  CHECK(plan()["schedule_source"] == "default table");
  ::setenv("FLASHPLUS_TUNING", record.c_str(), 1);
  CHECK(plan()["schedule_source"] == record);
  ::unsetenv("FLASHPLUS_TUNING");

  // A knob of another version, another model, text that is none: a warning, and the default.
  std::string err;
  json unknown = made;
  unknown["cells"][0]["best"] = "cpu.flash mr=4 nr=2 tile_m=24 tile_n=32 warp=3";
  test::writeText(record, unknown.dump());
  CHECK(plan({}, &err)["schedule_source"] == "default table");
  CHECK(err.find("'warp' is not a knob of cpu.flash") != std::string::npos);
  json foreign = made;
  foreign["device"]["model"] = "another";
  test::writeText(record, foreign.dump());
  CHECK(plan()["schedule_source"] == "default table");
  test::writeText(record, "{");
  CHECK(plan({}, &err)["schedule_source"] == "default table");
  CHECK(err.find("is not a tuning record") != std::string::npos);
}

TEST_CASE("tune --backward: a record that later backwards take, of the kernel that it was measured of") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), record = cache + "/tuning/mine.json";
  const std::vector<std::string> shape = {"--device", "cpu", "--shape", "1,40,40,2,1,16", "--causal"};
  const std::vector<std::string> few = {"--knob", "tile_m=24,48", "--knob",         "tile_n=96,192",
                                        "--knob", "mr=6",         "--knob",         "nr=2",
                                        "--rounds", "1",          "--milliseconds", "0.1"};
  const std::vector<std::string> tune = joined(joined({"tune", "--backward"}, shape), few);
  auto plan = runCli(joined(tune, {"--dry-run", "--json"}), cache);
  INFO(plan.err);
  REQUIRE(plan.code == 0);
  REQUIRE(plan.json()["groups"].size() == 1);
  const json group = plan.json()["groups"][0];
  CHECK(group["spec"].get<std::string>().starts_with("backward dtype=bf16 dqk=16"));
  CHECK(plan.json()["kernels"] == group["schedules"]);
  CHECK(plan.json()["kernels"].get<int>() >= 4);

  auto tuned = runCli(joined(tune, {"-o", record}), cache);
  INFO(tuned.err);
  REQUIRE(tuned.code == 0);
  json made = parse(record);
  REQUIRE(made["cells"].size() == 1);
  json &cell = made["cells"][0];
  CHECK(cell["spec"] == group["spec"]);
  CHECK(cell["timed"].size() == group["schedules"]);
  CHECK(cell["best"] == cell["timed"][0]["schedule"]);
  CHECK(cell["problem"]["backward"] == true);
  for (const json &one : cell["timed"]) {
    CHECK(one["schedule"].get<std::string>().starts_with("cpu.backward "));
    CHECK(!one.contains("failed"));
  }
  // One that nobody takes by default, so that the choice shows.
  std::string other;
  for (const json &one : cell["timed"])
    if (one["schedule"] != cell["reference"])
      other = one["schedule"];
  REQUIRE(other != "");
  cell["best"] = other;
  test::writeText(record, made.dump());
  auto bench = [&](std::vector<std::string> more) {
    auto result = runCli(
        joined(joined({"bench", "--rounds", "1", "--milliseconds", "0.1", "--json"}, shape), more), cache);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return result.json()["cells"][0];
  };
  CHECK(bench({"--backward"})["schedule"] == other);
  CHECK(bench({"--backward"})["schedule_source"] == record);
  CHECK(bench({})["schedule_source"] == "default table");
  auto run = runCli(
      {"run", "--random", "1,40,40,2,1,16", "--device", "cpu", "--causal", "--backward", "--check", "--json"},
      cache);
  CHECK(run.code == 0);
  CHECK(run.json()["backward"]["check"]["good"] == true);
  // Warm-up compiles it, so that the first backward does not have to.
  auto warm = runCli({"warmup", "--target", "cpu", "--head-dim", "16", "--dtype", "bf16", "--causal",
                      "--backward", "--dry-run"},
                     cache);
  CHECK_MESSAGE(warm.out.find(other) != std::string::npos, warm.out);
}

#endif // FLASHPLUS_HAS_COMPILER

TEST_CASE("tune leaves schedules with wrong results out") {
  // A compiler whose kernels return at once: every output stays NaN.
  const char *fake = std::getenv("FLASHPLUS_FAKE_COMPILER");
  if (!fake || !*fake)
    return;
  const char *before = std::getenv("FLASHPLUS_COMPILER");
  const std::string restored = before ? before : "";
  ::setenv("FLASHPLUS_COMPILER", fake, 1);
  test::TemporaryFolder folder;
  const std::vector<std::string> tune = {"tune",   "--device",  "cpu",    "--shape", "1,8,8,1,1,16",
                                         "--knob", "tile_m=12", "--knob", "mr=6"};
  auto result = runCli(tune, folder.path("cache"));
  auto backward = runCli({"tune", "--backward", "--device", "cpu", "--shape", "1,8,8,1,1,16", "--knob",
                          "tile_m=24", "--knob", "mr=6"},
                         folder.path("cache"));
  before ? ::setenv("FLASHPLUS_COMPILER", restored.c_str(), 1) : ::unsetenv("FLASHPLUS_COMPILER");
  for (const auto &wrong : {result, backward}) {
    CHECK(wrong.code == 1);
    CHECK(wrong.err.find("no schedule is feasible and right") != std::string::npos);
  }
}
