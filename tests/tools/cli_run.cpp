// SPDX-License-Identifier: BSD-3-Clause
// `flashplus run` and `flashplus inspect` with a compiler: results, the cache, the files that are written.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"
#include "tools/io/convert.h"
#include "tools/io/npy.h"
#include "tools/io/safetensors.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#ifdef FLASHPLUS_HAS_COMPILER

#include <sys/stat.h>

using namespace flashplus;
using test::runCli;

namespace {

std::string writeFloats(const std::string &path, std::vector<int64_t> shape,
                        const std::vector<float> &values) {
  io::Tensor tensor = *io::makeTensor(io::ElementType::F32, std::move(shape));
  REQUIRE(tensor.data.size() == values.size() * sizeof(float));
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  REQUIRE(io::writeNpy(path, tensor).isOk());
  return path;
}

/// Runs with --check --json on the CPU and requires a good result.
nlohmann::json runGood(std::vector<std::string> arguments, const std::string &cache_dir) {
  std::vector<std::string> all = {"run", "--check", "--json", "--device", "cpu", "--repeat", "1"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  auto result = runCli(all, cache_dir);
  INFO(result.err);
  INFO(result.out);
  REQUIRE(result.code == 0);
  auto json = result.json();
  REQUIRE(json.is_object());
  CHECK(json["check"]["good"] == true);
  return json;
}

} // namespace

TEST_CASE("--check is never good for a result with NaN, whatever the model's error is") {
  test::TemporaryFolder folder;
  std::vector<float> values(1 * 4 * 2 * 16, 0.5f);
  values[37] = NAN;
  const std::string file = writeFloats(folder.path("nan.npy"), {1, 4, 2, 16}, values);
  for (bool backward : {false, true}) {
    std::vector<std::string> words = {"run", "--device", "cpu", "--check", "--q",
                                      file,  "--k",      file,  "--v",     file};
    if (backward)
      words.push_back("--backward");
    auto result = runCli(words, folder.path("cache"));
    INFO(result.out);
    CHECK(result.code == 1);
    CHECK(result.out.find("FAILED") != std::string::npos);
    CHECK(result.out.find("check          good") == std::string::npos);
  }
}

TEST_CASE("keys in pages: the same results as of rows, on the CPU and in the emulator") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  for (const char *pages : {"order", "random"}) {
    const auto json =
        runGood({"--random", "2,5,70,4,2,32", "--causal", "--page-size", "16", "--pages", pages}, cache);
    CHECK(json.dump().find("keys=paged") != std::string::npos);
  }
  runGood({"--random", "2,40,70,4,2,32", "--page-size", "7", "--pages", "random", "--num-splits", "2"},
          cache);
  const auto emulated = runCli(
      {"emulate", "--random", "2,5,70,4,2,32", "--page-size", "16", "--pages", "random", "--check"}, cache);
  INFO(emulated.err);
  CHECK(emulated.code == 0);
  const auto kernel = runCli({"inspect", "--stage", "spec", "--head-dim", "64", "--paged"}, cache);
  CHECK(kernel.out.find("keys=paged") != std::string::npos);
  // Bad input.
  const auto refused = [&](std::vector<std::string> flags, const char *sentence) {
    flags.insert(flags.begin(), {"run", "--device", "cpu", "--random", "1,4,4,1,1,16"});
    const auto result = runCli(flags, cache);
    CHECK(result.code == 2);
    CHECK_MESSAGE(result.err.find(sentence) != std::string::npos, result.err);
  };
  refused({"--page-size", "4", "--backward"}, "--page-size: not with --backward, whose keys are rows");
  refused({"--pages", "random"}, "--pages: only with --page-size");
  refused({"--page-size", "0"}, "--page-size");
  refused({"--page-size", "4", "--pages", "sorted"}, "--pages");
}

TEST_CASE("the emulator: a device like the others, and what it executed") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> problem = {"--random", "1,70,90,2,1,64", "--causal", "--check", "--json"};
  std::vector<std::string> run = {"run", "--device", "emulator", "--repeat", "0"}, emulate = {"emulate"};
  run.insert(run.end(), problem.begin(), problem.end());
  emulate.insert(emulate.end(), problem.begin(), problem.end());
  auto ran = runCli(run, cache);
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  CHECK(ran.json()["device"] == "emulator");
  CHECK(ran.json()["from"] == "compiled");
  CHECK(runCli(run, cache).json()["from"] == "disk"); // as PTX
  auto emulated = runCli(emulate, cache);
  INFO(emulated.err);
  REQUIRE(emulated.code == 0);
  auto json = emulated.json();
  CHECK(json["check"]["good"] == true);
  REQUIRE(json["launches"].size() >= 1);
  CHECK(json["launches"][0]["mix"]["matrix"] > 0);
  CHECK(json["launches"][0]["cycles"]["mma"] > 0);
  CHECK(json["launches"][0]["bytes"]["global_read"] > 0);
  // Stopped before the end: the failure names the line.
  emulate.insert(emulate.end(), {"--step-limit", "100"});
  auto stopped = runCli(emulate, cache);
  CHECK(stopped.code == 1);
  CHECK(stopped.err.find("step limit") != std::string::npos);
  CHECK(stopped.err.find("line ") != std::string::npos);
}

TEST_CASE("the main job: cold, then warm in a new process without a compile") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache"), input = test::dataFile("minilm_layer0_qkv.safetensors");
  auto cold = runGood({"--in", input}, cache);
  CHECK(cold["from"] == "compiled");
  CHECK(cold["counters"]["compiles"] == 1);
  CHECK(cold["cold_compile_ms"] > 0);
  CHECK(cold["warm_load_ms"] > 0);
  CHECK(cold["gflops"] > 0);
  auto warm = runGood({"--in", input}, cache);
  CHECK(warm["from"] == "disk");
  CHECK(warm["counters"]["compiles"] == 0);
  CHECK(warm["counters"]["miss_absent"] == 0);
  CHECK(cold["counters"]["miss_absent"] == 1);
  CHECK(cold["counters"]["resident_kernels"] == 1);
  double stages = 0;
  for (const char *stage : {"build_ms", "passes_ms", "optimize_ms", "emit_ms"}) {
    CHECK(cold["counters"][stage] > 0);
    stages += cold["counters"][stage].get<double>();
  }
  CHECK(stages <= cold["counters"]["compile_ms"].get<double>());
  CHECK(warm["cold_compile_ms"].is_null());
  CHECK(warm["warm_load_ms"] > 0);
  CHECK(warm["plan"]["steps"][0]["key"] == cold["plan"]["steps"][0]["key"]);

  auto text = runCli({"run", "--in", input, "--check", "--device", "cpu"}, cache);
  CHECK(text.code == 0);
  for (const char *row : {"kernel", "key", "cold compile", "warm load", "FLOP/s", "largest error", "good"})
    CHECK_MESSAGE(text.out.find(row) != std::string::npos, row);

  auto list = runCli({"cache", "ls", "--json"}, cache).json();
  REQUIRE(list["entries"].size() == 1);
  CHECK(list["entries"][0]["spec"] == cold["plan"]["steps"][0]["spec"]);
  CHECK(runCli({"cache", "ls"}, cache).out.find("1 kernels") != std::string::npos);
  auto stats = runCli({"cache", "stats", "--json"}, cache).json();
  CHECK(stats["kernels"] == 1);
  CHECK(stats["kinds"]["x86-object"] == 1);
  CHECK(stats["newest"] == list["entries"][0]["modified"]);
  CHECK(runCli({"cache", "verify"}, cache).code == 0);

  // One flipped byte: verify says so, and a run warns, rebuilds and is right.
  std::string path = list["entries"][0]["path"];
  std::string bytes = test::readText(path);
  bytes[bytes.size() / 2] ^= 1;
  test::writeText(path, bytes);
  auto verify = runCli({"cache", "verify", "--json"}, cache);
  CHECK(verify.code == 1);
  CHECK(verify.json()["bad"].size() == 1);
  stats = runCli({"cache", "stats", "--json"}, cache).json();
  CHECK(stats["bad"] == 1);
  CHECK(stats["bad_by_reason"].size() == 1);
  auto rebuilt = runGood({"--in", input}, cache);
  CHECK(rebuilt["from"] == "compiled");
  CHECK(runCli({"cache", "verify"}, cache).code == 0);
  CHECK(runCli({"cache", "clear", "--json"}, cache).json()["removed"] == 1);
  CHECK(runCli({"cache", "stats", "--json"}, cache).json()["kernels"] == 0);
}

TEST_CASE("masks, scores, types and shapes meet the reference") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache");
  std::string slopes = writeFloats(folder.path("slopes.npy"), {4}, {0.5f, 0.25f, 0.125f, 0.0625f});
  std::string bias = writeFloats(folder.path("bias.npy"), {4}, {1, -1, 2, 0});
  runGood({"--random", "2,65,97,4,2,64", "--causal"}, cache);
  runGood({"--random", "1,33,70,4,4,40,24", "--dtype", "fp32", "--window", "10,3", "--scale", "-0.3"}, cache);
  runGood({"--random", "1,40,40,4,4,32", "--dtype", "fp16", "--softcap", "5", "--alibi", slopes}, cache);
  auto scored = runGood({"--random", "1,40,40,4,4,32", "--score", "s + bias[h] * w", "--tensor",
                         "bias=" + bias, "--scalar", "w=0.5"},
                        cache);
  CHECK(scored["plan"]["steps"][0]["spec"].get<std::string>().find("t0[h]") != std::string::npos);
  // Rows without a visible key: more queries than keys.
  runGood({"--random", "1,20,5,2,2,32", "--causal", "--lse-empty=-inf"}, cache);
  auto split = runGood({"--random", "1,1,4096,2,1,64", "--num-splits", "4"}, cache);
  CHECK(split["plan"]["steps"].size() == 2);
}

TEST_CASE("sequences of unequal length") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache");
  std::vector<float> values(30 * 2 * 16);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<float>(i) * 0.7f);
  std::string qkv = writeFloats(folder.path("qkv.npy"), {30, 2, 16}, values);
  io::Tensor cu = *io::makeTensor(io::ElementType::I64, {4});
  int64_t offsets[] = {0, 0, 13, 30}; // one of them empty; int64 as NumPy likes it
  std::memcpy(cu.data.data(), offsets, sizeof offsets);
  REQUIRE(io::writeNpy(folder.path("cu.npy"), cu).isOk());
  std::vector<std::string> arguments = {"--q",
                                        qkv,
                                        "--k",
                                        qkv,
                                        "--v",
                                        qkv,
                                        "--cu-seqlens-q",
                                        folder.path("cu.npy"),
                                        "--cu-seqlens-k",
                                        folder.path("cu.npy"),
                                        "--causal"};
  runGood(arguments, cache);
  arguments.insert(arguments.end(), {"--max-seqlen-q", "5000", "--max-seqlen-k", "7000"});
  runGood(arguments, cache);
}

TEST_CASE("the outputs are written, by either format, with the log-sum-exp") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache");
  runGood({"--random", "1,8,8,2,2,16", "--dtype", "fp16", "-o", folder.path("o.safetensors")}, cache);
  runGood({"--random", "1,8,8,2,2,16", "--dtype", "fp16", "-o", folder.path("o.npy")}, cache);
  std::string names[] = {"o", "lse"};
  auto tensors = io::readSafetensors(folder.path("o.safetensors"), names);
  REQUIRE(tensors);
  auto o = io::readNpy(folder.path("o.npy")), lse = io::readNpy(folder.path("o.lse.npy"));
  REQUIRE(o);
  REQUIRE(lse);
  CHECK(o->shape == std::vector<int64_t>{1, 8, 2, 16});
  CHECK(lse->shape == std::vector<int64_t>{1, 2, 8});
  CHECK(o->data == (*tensors)["o"].data);
  CHECK(lse->data == (*tensors)["lse"].data);

  // A folder that is not there is made; one that cannot be is said before any work.
  auto written =
      runCli({"run", "--random", "1,8,8,2,2,16", "-o", folder.path("no/o.npy"), "--device", "cpu"}, cache);
  CHECK(written.code == 0);
  CHECK(io::readNpy(folder.path("no/o.npy")));
  auto failed = runCli(
      {"run", "--random", "1,8,8,2,2,16", "-o", folder.path("o.npy/no/o.npy"), "--device", "cpu"}, cache);
  CHECK(failed.code == 2);
  CHECK(failed.err.find("--out: " + folder.path("o.npy/no/o.npy")) != std::string::npos);
}

TEST_CASE("what the library refuses is bad input") {
  auto refused = [](std::vector<std::string> arguments, const std::string &text) {
    arguments.insert(arguments.begin(), {"run", "--device", "cpu"});
    auto result = runCli(arguments);
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(result.err.find(text) != std::string::npos);
  };
  refused({"--random", "1,8,8,3,2,16"}, "heads");
  refused({"--random", "1,8,8,2,2,264"}, "256");
  refused({"--random", "1,8,8,2,2,16", "--score", "s +* 2"}, "column");
  refused({"--random", "1,8,8,2,2,16", "--score", "s + t[h]"}, "t");
  refused({"--random", "1,8,8,2,2,16", "--softcap", "-1"}, "softcap");
}

TEST_CASE("inspect prints every stage of a CPU kernel, by flags or by spec text") {
  test::TemporaryFolder folder;
  std::string cache = folder.path("cache");
  for (std::string stage : {"spec", "attn", "loops", "llvm", "asm", "resources"}) {
    auto result = runCli({"inspect", "--stage", stage, "--head-dim", "32", "--causal"}, cache);
    INFO(stage);
    INFO(result.err);
    CHECK(result.code == 0);
    CHECK(result.out.size() > 10);
  }
  auto flags = runCli({"inspect", "--stage", "attn", "--head-dim", "64", "--json"}, cache).json();
  auto spec = runCli({"inspect", "--stage", "attn", "--spec", flags["spec"].get<std::string>()}, cache);
  CHECK(spec.code == 0);
  CHECK(spec.out.find(flags["text"].get<std::string>()) != std::string::npos);
  CHECK(runCli({"inspect", "--stage", "attn", "--spec", flags["spec"], "--causal"}).code == 2);
}

TEST_CASE("inspect prints a score and its derivatives, without a compiler") {
  auto text = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"inspect", "--stage", "score"});
    auto result = runCli(arguments);
    INFO(result.err);
    CHECK(result.code == 0);
    return result.out;
  };
  CHECK(text({}) == "canonical = s\nscore = s\nd/ds = 1\nlinear in s\n");
  const std::string softcap = text({"--softcap"});
  CHECK(softcap ==
        "canonical = p0 * tanh(s / p0)\nx0 = s / p0\nx1 = tanh(x0)\nx2 = sech2(x0, x1)\nscore = p0 * x1\n"
        "d/ds = x2\nd/dp0 = x1 - x2 * x0\nnot linear in s\n");
  CHECK(text({"--score", "cap * tanh(s / cap)"}) == softcap);
  CHECK(text({"--alibi", "heads"}).find("d/dt0[h] = -x0\n") != std::string::npos);
  const std::string spec = "forward dtype=bf16 dqk=64 dv=64 score={p0 * tanh(s / p0)}";
  CHECK(text({"--spec", spec}) == softcap);
  CHECK(runCli({"inspect", "--stage", "score", "--softcap", "--json"}).json()["text"] == softcap);
  CHECK(runCli({"inspect", "--stage", "score", "--score", "s +"}).code == 2);
}

TEST_CASE("inspect prints PTX without a GPU") {
  auto result =
      runCli({"inspect", "--stage", "ptx", "--target", "sm_80", "--arch", "sm_90", "--head-dim", "64"});
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK(result.out.find(".entry") != std::string::npos);
}

TEST_CASE("inspect gives the machine code of a GPU's kernel to a disassembler, and leaves no file") {
  test::TemporaryFolder folder;
  const std::string program = folder.path("nvdisasm");
  test::writeText(program, "#!/bin/sh\ndd bs=1 skip=1 count=3 if=\"$1\" 2>/dev/null\necho \" of $#\"\n");
  REQUIRE(::chmod(program.c_str(), 0700) == 0);
  std::vector<std::string> words = {"inspect", "--stage",    "sass", "--target",
                                    "sm_80",   "--head-dim", "32",   "--disassembler"};
  words.push_back(program);
  auto result = runCli(words, folder.path("cache"));
  INFO(result.err);
  if (result.err.find("the kernel is PTX") != std::string::npos) {
    CHECK(result.code == 1); // there is no assembler
    return;
  }
  CHECK(result.code == 0);
  CHECK(result.out == "ELF of 1\n");
  words.back() = folder.path("absent");
  result = runCli(words, folder.path("cache"));
  CHECK(result.code == 2);
  CHECK(result.err.find("absent: No such file") != std::string::npos);
  test::writeText(program, "#!/bin/sh\necho bad cubin >&2; exit 3\n");
  words.back() = program;
  result = runCli(words, folder.path("cache"));
  CHECK(result.code == 1);
  CHECK(result.err.find("bad cubin") != std::string::npos);
  test::writeText(program, "#!/bin/sh\necho\n"); // ends well, and is none
  result = runCli(words, folder.path("cache"));
  CHECK(result.code == 1);
  CHECK(result.err.find("nvdisasm printed nothing") != std::string::npos);
}

TEST_CASE("the emulator runs the target and the schedule that it is told") {
  test::TemporaryFolder folder;
  const auto entry = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"emulate", "--random", "1,128,128,1,1,64", "--check", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    auto result = runCli(words, folder.path("cache"));
    INFO(result.err);
    CHECK(result.code == 0);
    return result.json()["launches"][0];
  };
  CHECK(entry({})["warp_instructions"] != entry({"--schedule", "tile_n=16"})["warp_instructions"]);
  CHECK(!entry({"--target", "h100"}).empty());
  for (auto [target, algorithm] : {std::pair{"sm_80", "'sm80."}, {"h100", "'sm90."}}) {
    auto refused =
        runCli({"emulate", "--random", "1,24,24,1,1,32", "--target", target, "--schedule", "tile_n=7"},
               folder.path("cache"));
    INFO(refused.err);
    CHECK(refused.code == 1);
    CHECK(refused.err.find("tile_n is 7") != std::string::npos);
    CHECK(refused.err.find(algorithm) != std::string::npos);
  }
}

TEST_CASE("doctor: a finding for each part, and 1 with advice where something is wrong") {
  test::TemporaryFolder folder;
  const auto find = [](const nlohmann::json &report, const std::string &name) {
    for (const auto &finding : report["findings"])
      if (finding["name"] == name)
        return finding;
    return nlohmann::json();
  };
  // What the machine of this test may not have (a driver that works) is not the test's business.
  const auto good = runCli({"doctor", "--json"}, folder.path("cache"));
  const auto report = good.json();
  REQUIRE_MESSAGE(report.is_object(), (good.out + good.err));
  CHECK(good.code == (report["good"] == true ? 0 : 1));
  for (const char *name :
       {"library", "compiler", "cache", "cache entries", "cpu", "cpu self-check", "cpu cache"})
    CHECK_MESSAGE(find(report, name).value("state", "absent") == "ok",
                  name << ": " << find(report, name).dump());
  CHECK(find(report, "cpu speed")["detail"].get<std::string>().find("FLOP/s") != std::string::npos);
  for (const auto &finding : report["findings"])
    CHECK((finding["state"] == "ok") != finding.contains("advice"));
  // A damaged entry, a folder that is not there, a setting that means nothing.
  for (const auto &entry : std::filesystem::recursive_directory_iterator(folder.path("cache")))
    if (entry.path().extension() == ".fpk")
      std::filesystem::resize_file(entry.path(), 10);
  setenv("FLASHPLUS_CACHE_PATH", "/nope/tier", 1);
  setenv("FLASHPLUS_TUNING", "/nope/tuning", 1);
  const auto bad = runCli({"doctor", "--json"}, folder.path("cache")),
             text = runCli({"doctor"}, folder.path("cache"));
  unsetenv("FLASHPLUS_CACHE_PATH");
  unsetenv("FLASHPLUS_TUNING");
  CHECK(bad.code == 1);
  CHECK(bad.json()["good"] == false);
  for (const char *name : {"cache entries", "cache path", "setting"}) {
    CHECK_MESSAGE(find(bad.json(), name).value("state", "absent") == "BAD", name << ": " << bad.out);
    CHECK(find(bad.json(), name).value("advice", "") != "");
  }
  CHECK(text.code == 1);
  CHECK(text.out.find("-> ") != std::string::npos);
  CHECK(text.out.find(" wrong") != std::string::npos);
  const auto none = runCli({"doctor", "--json", "--cache-dir", ""}); // without a cache
  CHECK(find(none.json(), "cache")["state"] == "BAD");
}

#endif // FLASHPLUS_HAS_COMPILER
