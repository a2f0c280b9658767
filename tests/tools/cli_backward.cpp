// SPDX-License-Identifier: BSD-3-Clause
// Gradients from the command line: run, emulate, warmup, bench and inspect of a backward.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"
#include "tools/io/convert.h"
#include "tools/io/npy.h"
#include "tools/io/safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

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

std::vector<std::string> specsOf(const json &list) {
  std::vector<std::string> specs;
  for (const json &row : list["variants"])
    specs.push_back(row["spec"]);
  return specs;
}

bool holds(const std::vector<std::string> &specs, const std::string &spec) {
  return std::ranges::count(specs, spec) != 0;
}

} // namespace

TEST_CASE("bad usage of gradients names the flag") {
  test::TemporaryFolder folder;
  const std::string dout = folder.path("dout.npy");
  REQUIRE(io::writeNpy(dout, *io::makeTensor(io::ElementType::F32, {1, 8, 1, 16})).isOk());
  refused({"run", "--random", "1,8,8,1,1,16", "--dout", dout}, "--dout: only with --backward");
  refused({"run", "--random", "1,9,8,1,1,16", "--backward", "--dout", dout},
          "--dout: shape (1, 8, 1, 16), must be (1, 9, 1, 16), that of the output");
  refused({"run", "--random", "1,8,8,1,1,16", "--backward", "--dout", folder.path("absent.npy")},
          "--dout: " + folder.path("absent.npy"));
  refused({"tune", "--any-order", "--shape", "1,8,8,1,1,16"}, "--any-order: only with --backward");
  refused({"inspect", "--stage", "attn", "--operation", "sideward"}, "--operation");
  refused({"inspect", "--stage", "attn", "--operation", "combine"}, "--operation");
  refused(
      {"inspect", "--stage", "attn", "--spec", "forward dtype=bf16 dqk=64 dv=64", "--operation", "backward"},
      "--spec");
  refused({"inspect", "--stage", "attn", "--operation", "backward", "--target", "sm_80"},
          "--operation 'backward': is no kernel of this backward on sm_80@sm_80, allowed are backward_delta, "
          "backward_kv, backward_q");
  refused({"inspect", "--stage", "attn", "--operation", "backward_q", "--target", "x86-64-v3"},
          "allowed are backward_delta, backward, backward with --split, backward_sum");
}

TEST_CASE("the list of a release for training is that of the forward, each with its backward") {
  for (std::string target : {"x86-64-v4", "sm_80", "sm_90a"}) {
    INFO(target);
    const json forward = runCli({"warmup", "--list", "--target", target, "--json"}).json();
    const json training = runCli({"warmup", "--list", "--target", target, "--backward", "--json"}).json();
    const std::vector<std::string> all = specsOf(forward), trained = specsOf(training);
    REQUIRE(all.size() > 20);
    size_t backwards = 0;
    for (const std::string &spec : trained) {
      if (spec.starts_with("backward ")) {
        ++backwards;
        CHECK_MESSAGE(holds(trained, "forward" + spec.substr(8)), spec);
      } else {
        CHECK(spec.starts_with("forward "));
        CHECK_MESSAGE(holds(all, spec), spec);
      }
    }
    CHECK(trained.size() == 2 * backwards);
    CHECK(holds(trained, "backward dtype=bf16 dqk=128 dv=128 right=1"));
    CHECK(training["kernels"] > forward["kernels"]);
  }
  const auto text = runCli({"warmup", "--list", "--target", "sm_80", "--backward"});
  CHECK(text.code == 0);
  CHECK(text.out.find("backward dtype=bf16 dqk=64 dv=64") != std::string::npos);
}

TEST_CASE("a target without a kernel of the gradients is refused, not half warmed") {
  auto result = runCli(
      {"warmup", "--target", "sm_80", "--head-dim", "64", "--dtype", "fp32", "--backward", "--dry-run"});
  INFO(result.out);
  CHECK(result.code != 0);
  CHECK(result.err.find("backward dtype=fp32") != std::string::npos);
}

#ifdef FLASHPLUS_HAS_COMPILER

namespace {

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// A run of forward and backward on the CPU that must be good.
json runGood(const std::vector<std::string> &arguments, const std::string &cache) {
  auto result = runCli(
      joined({"run", "--backward", "--check", "--json", "--device", "cpu", "--repeat", "1"}, arguments),
      cache);
  INFO(result.err);
  INFO(result.out);
  REQUIRE(result.code == 0);
  json whole = result.json();
  REQUIRE(whole.is_object());
  CHECK(whole["check"]["good"] == true);
  CHECK(whole["backward"]["check"]["good"] == true);
  return whole;
}

} // namespace

TEST_CASE("run --dropout: both passes are good, by the mask of --seed") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const json whole = runGood({"--random", "1,40,50,2,1,16", "--dropout", "0.3", "--seed", "7"}, cache);
  for (const json &plan : {whole["plan"], whole["backward"]["plan"]})
    CHECK(plan.dump().find("dropout=1") != std::string::npos);
  refused({"run", "--random", "1,8,8,1,1,16", "--dropout", "1"}, "--dropout");
}

TEST_CASE("run --sinks: both passes are good, and a file has one of each head") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const json whole = runGood({"--random", "1,40,50,2,1,16", "--causal", "--sinks", "random"}, cache);
  CHECK(whole["plan"].dump().find("sinks=fp32") != std::string::npos);
  CHECK(whole["backward"]["plan"].dump().find("sinks") == std::string::npos);
  io::Tensor three = *io::makeTensor(io::ElementType::F32, {3});
  const std::string file = folder.path("three.npy");
  REQUIRE(io::writeNpy(file, three).isOk());
  refused({"run", "--random", "1,8,8,2,1,16", "--sinks", file}, "--sinks: shape (3,), must be (2,)");
  refused({"run", "--random", "1,8,8,2,1,16", "--sinks", "/nowhere.npy"}, "--sinks");
  const auto spec = runCli({"inspect", "--stage", "spec", "--head-dim", "64", "--sinks", "bf16"}, cache);
  CHECK(spec.out.find("forward dtype=bf16 dqk=64 dv=64 sinks=bf16") != std::string::npos);
  refused({"inspect", "--stage", "spec", "--split", "--sinks", "bf16"}, "results is partial");
}

TEST_CASE("run --backward: both passes are measured, and judged part by part") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> problem = {"--random", "2,65,97,4,2,64", "--causal"};
  const json cold = runGood(problem, cache);
  const json &backward = cold["backward"];
  CHECK(cold["from"] == "compiled");
  CHECK(backward["from"] == "compiled");
  CHECK(backward["cold_compile_ms"] > 0);
  CHECK(backward["warm_load_ms"] > 0);
  CHECK(backward["run_ms"] > 0);
  REQUIRE(backward["plan"]["steps"].size() >= 2);
  CHECK(backward["plan"]["steps"][0]["spec"].get<std::string>().starts_with("backward_delta "));
  for (std::string part : {"dq", "dk", "dv"}) {
    INFO(part);
    const json &judged = backward["check"]["parts"][part];
    CHECK(judged["good"] == true);
    CHECK(judged["rows"] > 0);
    CHECK(judged["error"] > 0);
    CHECK(judged["bound"] >= judged["error"]);
    CHECK(judged["rms_bound"] >= judged["rms"]);
  }
  // 2.5 times the operations of the forward.
  const double forward_flops = cold["gflops"].get<double>() * cold["run_ms"].get<double>(),
               backward_flops = backward["gflops"].get<double>() * backward["run_ms"].get<double>();
  CHECK(backward_flops == doctest::Approx(2.5 * forward_flops));

  const json warm = runGood(problem, cache);
  CHECK(warm["backward"]["from"] == "disk");
  CHECK(warm["counters"]["compiles"] == 0);

  auto text = runCli(joined({"run", "--backward", "--check", "--device", "cpu"}, problem), cache);
  CHECK(text.code == 0);
  for (const char *row : {"backward (speed: of 2.5 times", "error of dq", "error of dk", "error of dv",
                          "mean square", "allowed", "good"})
    CHECK_MESSAGE(text.out.find(row) != std::string::npos, row);
  CHECK(runCli(joined({"run", "--device", "cpu"}, problem), cache).out.find("backward") == std::string::npos);
}

TEST_CASE("run --backward: masks, scores, types and shapes meet the reference") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), slopes = folder.path("slopes.npy");
  io::Tensor tensor = *io::makeTensor(io::ElementType::F32, {4});
  const float values[] = {0.5f, 0.25f, 0.125f, 0.0625f};
  std::memcpy(tensor.data.data(), values, sizeof values);
  REQUIRE(io::writeNpy(slopes, tensor).isOk());
  runGood({"--random", "1,33,70,4,4,40,24", "--dtype", "fp32", "--window", "10,3", "--scale", "-0.3"}, cache);
  runGood({"--random", "1,40,40,4,4,32", "--dtype", "fp16", "--softcap", "5", "--alibi", slopes}, cache);
  runGood({"--random", "1,40,40,4,2,32", "--score", "s + slopes[h] * w", "--tensor", "slopes=" + slopes,
           "--scalar", "w=0.5", "--threads", "1"},
          cache);
  runGood({"--random", "1,20,5,2,2,32", "--causal", "--lse-empty=-inf"}, cache); // rows that see no key
  runGood({"--random", "1,8,0,2,2,16"}, cache);                                  // none sees one
  runGood({"--random", "1,0,8,2,2,16"}, cache);
}

TEST_CASE("run --backward: sequences of unequal length, and rows that are not in use") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), qkv = folder.path("qkv.npy");
  io::Tensor rows = *io::makeTensor(io::ElementType::F32, {30, 2, 16});
  for (int i = 0; i < 30 * 2 * 16; ++i) {
    const float x = std::sin(static_cast<float>(i) * 0.7f);
    std::memcpy(rows.data.data() + i * 4, &x, 4);
  }
  REQUIRE(io::writeNpy(qkv, rows).isOk());
  auto integers = [&](const std::string &name, std::vector<int32_t> values) {
    io::Tensor t = *io::makeTensor(io::ElementType::I32, {static_cast<int64_t>(values.size())});
    std::memcpy(t.data.data(), values.data(), t.data.size());
    REQUIRE(io::writeNpy(folder.path(name), t).isOk());
    return folder.path(name);
  };
  const std::string cu = integers("cu.npy", {0, 0, 13, 30}), used = integers("used.npy", {0, 9, 17});
  runGood({"--q", qkv, "--k", qkv, "--v", qkv, "--cu-seqlens-q", cu, "--cu-seqlens-k", cu, "--causal",
           "--seqused-k", used},
          cache);
}

TEST_CASE("run --backward: gradients are written, with dout, from which they come again") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> problem = {"--random", "1,12,9,2,1,16,8", "--dtype", "fp16"};
  runGood(joined(problem, {"-o", folder.path("g.safetensors")}), cache);
  runGood(joined(problem, {"-o", folder.path("g.npy")}), cache);
  const std::string names[] = {"o", "lse", "dout", "dq", "dk", "dv"};
  auto tensors = io::readSafetensors(folder.path("g.safetensors"), names);
  REQUIRE(tensors);
  for (const std::string &name : names) {
    INFO(name);
    auto file = io::readNpy(folder.path(name == "o" ? "g.npy" : "g." + name + ".npy"));
    REQUIRE(file);
    CHECK(file->shape == (*tensors)[name].shape);
    CHECK(file->data == (*tensors)[name].data);
  }
  CHECK((*tensors)["dk"].shape == std::vector<int64_t>{1, 9, 1, 16});
  CHECK((*tensors)["dv"].shape == std::vector<int64_t>{1, 9, 1, 8});
  CHECK((*tensors)["dout"].shape == std::vector<int64_t>{1, 12, 2, 8});
  runGood(joined(problem, {"--dout", folder.path("g.dout.npy"), "-o", folder.path("again.npy")}), cache);
  CHECK(io::readNpy(folder.path("again.dq.npy"))->data == (*tensors)["dq"].data);
  // Twice the gradient of the output, exactly twice that of q.
  io::Tensor twice = *io::convert((*tensors)["dout"], io::ElementType::F32);
  for (size_t i = 0; i < twice.data.size(); i += 4) {
    float x = 0;
    std::memcpy(&x, twice.data.data() + i, 4);
    x *= 2;
    std::memcpy(twice.data.data() + i, &x, 4);
  }
  REQUIRE(io::writeNpy(folder.path("twice.npy"), twice).isOk());
  runGood(joined(problem, {"--dout", folder.path("twice.npy"), "-o", folder.path("twice.safetensors")}),
          cache);
  auto doubled = io::readSafetensors(folder.path("twice.safetensors"), names);
  REQUIRE(doubled);
  for (int64_t i = 0; i < (*doubled)["dq"].elements(); ++i)
    CHECK(io::elementAt((*doubled)["dq"], i) ==
          doctest::Approx(2 * io::elementAt((*tensors)["dq"], i)).epsilon(2e-3));
}

TEST_CASE("run --backward: the same bits whatever the number of threads") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), one = folder.path("1.npy"), three = folder.path("3.npy");
  const std::vector<std::string> problem = {"--random", "1,130,500,2,1,32", "--dtype", "fp32"};
  const json whole = runGood(joined(problem, {"--threads", "1", "-o", one}), cache);
  CHECK(whole["backward"]["plan"]["steps"].size() == 3); // parts of dq, and their sum
  runGood(joined(problem, {"--threads", "3", "-o", three}), cache);
  for (const char *gradient : {"dq", "dk", "dv"})
    CHECK(test::readText(folder.path(std::string("1.") + gradient + ".npy")) ==
          test::readText(folder.path(std::string("3.") + gradient + ".npy")));
}

TEST_CASE("run --backward --check leaves with 1 where gradients are not good") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), dout = folder.path("dout.npy");
  io::Tensor one = *io::makeTensor(io::ElementType::F32, {1, 8, 1, 16});
  const float nan = NAN;
  std::memcpy(one.data.data(), &nan, sizeof nan);
  REQUIRE(io::writeNpy(dout, one).isOk());
  const std::vector<std::string> run = {"run",     "--random", "1,8,8,1,1,16", "--backward", "--dout", dout,
                                        "--check", "--device", "cpu",          "--repeat",   "0"};
  auto failed = runCli(joined(run, {"--json"}), cache);
  CHECK(failed.code == 1);
  CHECK(failed.json()["check"]["good"] == true); // the forward has no dout
  CHECK(failed.json()["backward"]["check"]["good"] == false);
  CHECK(failed.json()["backward"]["check"]["parts"]["dq"]["error"].is_null()); // not finite
  auto text = runCli(run, cache);
  CHECK(text.code == 1);
  CHECK(text.out.find("FAILED") != std::string::npos);
}

TEST_CASE("emulate --backward: the GPU's gradients without a GPU, and what they executed") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> problem = {"--random",   "1,70,90,2,1,64", "--causal",
                                            "--backward", "--check",        "--json"};
  auto emulated = runCli(joined({"emulate"}, problem), cache);
  INFO(emulated.err);
  REQUIRE(emulated.code == 0);
  const json whole = emulated.json();
  CHECK(whole["check"]["good"] == true);
  CHECK(whole["backward"]["check"]["good"] == true);
  CHECK(whole["backward"]["check"]["parts"].size() == 3);
  std::string entries;
  for (const json &launch : whole["launches"])
    entries += launch["entry"].get<std::string>() + " ";
  INFO(entries);
  for (const char *kernel : {"forward", "backward_delta", "backward_kv", "backward_q"})
    CHECK(entries.find(kernel) != std::string::npos);
  auto ran = runCli(joined({"run", "--device", "emulator", "--repeat", "0"}, problem), cache).json();
  CHECK(ran["backward"]["check"]["good"] == true);
  CHECK(ran["backward"]["plan"]["steps"].size() == 3);
}

TEST_CASE("warmup --backward: no shape of a warmed variant compiles in training") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> warmup = {"warmup",  "--target",   "cpu",      "--head-dim", "64",
                                           "--dtype", "bf16",       "--causal", "yes",        "--softcap",
                                           "no",      "--backward", "--json",   "--jobs",     "2"};
  auto done = runCli(warmup, cache);
  INFO(done.err);
  REQUIRE(done.code == 0);
  CHECK(done.json()["variants"] == 2);
  CHECK(done.json()["compiled"] == done.json()["kernels"].size());
  CHECK(runCli(joined(warmup, {"--dry-run"}), cache).json()["missing"] == 0);
  for (const char *sizes : {"1,1,1,1,1,64", "1,300,300,2,2,64", "40,3,7,8,2,64", "3,7,900,8,2,64"}) {
    INFO(sizes);
    auto ran = runCli({"run", "--random", sizes, "--causal", "--backward", "--device", "cpu", "--repeat", "0",
                       "--json"},
                      cache)
                   .json();
    CHECK(ran["counters"]["compiles"] == 0);
    CHECK(ran["backward"]["from"].get<std::string>().find("compiled") == std::string::npos);
  }
}

TEST_CASE(
    "bench --backward: its operations are 2.5 times the forward's, its files are told from a forward's") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), file = folder.path("b.json");
  const std::vector<std::string> grid = {
      "bench", "--device", "cpu", "--head-dim", "16,32/24", "--seqlen",       "17,32", "--tokens",
      "64",    "--hidden", "64",  "--rounds",   "2",        "--milliseconds", "0.1"};
  auto result = runCli(joined(grid, {"--backward", "--json", file, "--plot", folder.path("b.svg")}), cache);
  INFO(result.err);
  REQUIRE(result.code == 0);
  CHECK(result.out.find("backward") != std::string::npos);
  const json backward = json::parse(test::readText(file), nullptr, false);
  const json forward = runCli(joined(grid, {"--json"}), cache).json();
  REQUIRE(backward["cells"].size() == forward["cells"].size());
  for (size_t i = 0; i < backward["cells"].size(); ++i) {
    const json &cell = backward["cells"][i];
    CHECK(cell["backward"] == true);
    CHECK(!forward["cells"][i].contains("backward"));
    CHECK(cell["flops"].get<double>() == doctest::Approx(2.5 * forward["cells"][i]["flops"].get<double>()));
    CHECK(cell["tflops"] > 0);
    CHECK(cell["schedule"].get<std::string>().starts_with("cpu.backward "));
  }
  const std::string picture = test::readText(folder.path("b.svg"));
  CHECK(picture.find("Attention backward") != std::string::npos);
  CHECK(picture.find("D 16, causal, bf16, backward") != std::string::npos);
  // A forward is not compared with a backward of the same shape.
  auto compared = runCli(joined(grid, {"--json", "--baseline", file}), cache).json();
  for (const json &cell : compared["cells"])
    CHECK(!cell.contains("change_percent"));
  auto same = runCli(joined(grid, {"--backward", "--json", "--baseline", file}), cache).json();
  for (const json &cell : same["cells"])
    CHECK(cell.contains("change_percent"));
}

TEST_CASE("bench --backward: schedules are forced, the suite runs") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> one = {"bench",      "--device", "cpu",      "--shape", "1,40,40,2,1,16",
                                        "--backward", "--json",   "--rounds", "1",       "--milliseconds",
                                        "0.1"};
  auto forced = runCli(joined(one, {"--schedule", "tile_n=192"}), cache);
  INFO(forced.err);
  REQUIRE(forced.code == 0);
  CHECK(forced.json()["cells"][0]["schedule"].get<std::string>().find("tile_n=192") != std::string::npos);
  for (const auto &[schedule, why] :
       {std::pair<std::string, std::string>{"tile_n=7", "tile_n is 7; it must be a multiple"},
        {"cpu.flash tile_n=32", "there is cpu.backward"}}) {
    auto wrong = runCli(joined(one, {"--schedule", schedule}), cache);
    CHECK(wrong.code == 1);
    CHECK_MESSAGE(wrong.err.find(why) != std::string::npos, wrong.err);
  }
  std::vector<std::string> gpu = one;
  gpu[2] = "emulator";
  auto ambiguous = runCli(joined(gpu, {"--schedule", "stages=1"}), cache);
  CHECK(ambiguous.code == 2);
  CHECK(ambiguous.err.find("It must begin with sm80.backward_kv or sm80.backward_q") != std::string::npos);
  auto suite = runCli({"bench", "--suite", "features", "--backward", "--device", "cpu", "--tokens", "64",
                       "--hidden", "128", "--rounds", "1", "--milliseconds", "0.1", "--json"},
                      cache);
  INFO(suite.err);
  REQUIRE(suite.code == 0);
  const json cells = suite.json()["cells"];
  REQUIRE(cells.size() > 10);
  for (const json &cell : cells) {
    CHECK(cell["backward"] == true);
    CHECK(!cell.contains("reach"));
  }
}

TEST_CASE("inspect prints every stage of a backward's kernels, on the CPU and for a GPU") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  auto text = [&](const std::vector<std::string> &arguments) {
    auto result = runCli(joined({"inspect", "--head-dim", "32", "--causal", "--stage"}, arguments), cache);
    INFO(arguments[0]);
    INFO(result.err);
    CHECK(result.code == 0);
    return result.out;
  };
  for (std::string stage : {"spec", "attn", "loops", "llvm", "asm", "resources"})
    CHECK(text({stage, "--operation", "backward"}).size() > 10);
  auto isSpec = [&](const std::vector<std::string> &more, const std::string &spec) {
    CHECK(text(joined({"spec", "--operation"}, more)).find("spec      " + spec + "\n") != std::string::npos);
  };
  isSpec({"backward"}, "backward dtype=bf16 dqk=32 dv=32 right=1");
  isSpec({"backward", "--split"}, "backward dtype=bf16 dqk=32 dv=32 right=1 results=partial");
  isSpec({"backward_sum"}, "backward_sum dtype=bf16 dqk=32 align=2");
  isSpec({"backward_kv", "--target", "sm_80"}, "backward_kv dtype=bf16 dqk=32 dv=32 right=1");
  CHECK(text({"attn", "--operation", "backward"}).find("attn.backward") != std::string::npos);
  CHECK(text({"score", "--operation", "backward", "--softcap"}) == text({"score", "--softcap"}));
  for (std::string operation : {"backward_delta", "backward_kv", "backward_q"})
    for (std::string stage : {"spec", "attn", "loops", "llvm", "ptx", "resources"})
      CHECK(text({stage, "--operation", operation, "--target", "sm_80"}).size() > 10);
  CHECK(
      text({"ptx", "--operation", "backward_kv", "--target", "sm_80", "--arch", "sm_90"}).find("mma.sync") !=
      std::string::npos);
  // By its text.
  const std::string spec = "backward_q dtype=bf16 dqk=32 dv=32 right=1";
  CHECK(runCli({"inspect", "--stage", "ptx", "--target", "sm_80", "--spec", spec}, cache).out ==
        text({"ptx", "--operation", "backward_q", "--target", "sm_80"}));
}

#endif // FLASHPLUS_HAS_COMPILER
