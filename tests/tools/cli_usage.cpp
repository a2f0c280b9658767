// SPDX-License-Identifier: BSD-3-Clause
// Help, exit codes and messages: nothing here compiles a kernel.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"
#include "tools/io/npy.h"

#include <sys/stat.h>

using namespace flashplus;
using test::runCli;

namespace {

/// Exit 2, nothing on stdout, and a message with `text` on stderr.
void checkUsage(const std::vector<std::string> &arguments, const std::string &text) {
  auto result = runCli(arguments);
  std::string shown;
  for (const std::string &argument : arguments)
    shown += argument + " ";
  INFO(shown);
  INFO(result.err);
  CHECK(result.code == 2);
  CHECK(result.out == "");
  CHECK(result.err.starts_with("flashplus: "));
  CHECK(result.err.find(text) != std::string::npos);
}

} // namespace

TEST_CASE("every verb has help with an example") {
  for (std::vector<std::string> verb : {std::vector<std::string>{},
                                        {"run"},
                                        {"warmup"},
                                        {"inspect"},
                                        {"emulate"},
                                        {"bench"},
                                        {"tune"},
                                        {"devices"},
                                        {"doctor"},
                                        {"cache"},
                                        {"cache", "ls"},
                                        {"cache", "stats"},
                                        {"cache", "verify"},
                                        {"cache", "clear"}}) {
    verb.push_back("--help");
    auto result = runCli(verb);
    INFO(verb.front());
    CHECK(result.code == 0);
    CHECK(result.err == "");
    CHECK(result.out.find("Example") != std::string::npos);
    CHECK(result.out.find("  flashplus ") != std::string::npos);
  }
  CHECK(runCli({"--version"}).out.starts_with("flashplus 0."));
}

TEST_CASE("bad usage leaves with 2 and names the flag") {
  checkUsage({}, "subcommand");
  checkUsage(
      {"fly"},
      "unknown subcommand 'fly', allowed are run, warmup, inspect, emulate, bench, tune, cache, devices");
  checkUsage({"cache", "fly"}, "unknown subcommand 'fly', allowed are ls, stats, verify, prune, clear");
  checkUsage({"run", "--frobnicate"}, "--frobnicate");
  checkUsage({"warmup", "--frobnicate"}, "--frobnicate");
  checkUsage({"inspect", "--stage", "spec", "--frobnicate"}, "--frobnicate");
  checkUsage({"emulate", "--async", "soon"}, "--async");
  checkUsage({"devices", "surplus"}, "surplus");
  checkUsage({"cache"}, "subcommand");
  checkUsage({"cache", "ls", "--frobnicate"}, "--frobnicate");
  checkUsage({"run"}, "exactly one of --in");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--in", "x.safetensors"}, "exactly one of --in");
  checkUsage({"run", "--random", "1,8,8,1,1"}, "--random '1,8,8,1,1': has 5 integers, 6 to 7");
  checkUsage({"run", "--random", "1,8,eight,1,1,16"}, "column 5");
  checkUsage({"run", "--random", "0,8,8,1,1,16"}, "B = 0");
  checkUsage({"run", "--random", "1,8,8,1,1,99999999999"}, "D = 99999999999");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--dtype", "fp8"},
             "--dtype: 'fp8' is not known; allowed are fp16, bf16 and fp32");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--window", "3"},
             "--window '3': has 1 integers, 2 are expected");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--window", "-2,0"}, "-2, each side");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--device", "tpu"}, "--device 'tpu': allowed are");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--device", "cuda:x"}, "--device 'cuda:x'");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--num-splits", "129"}, "--num-splits");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--repeat", "-1"}, "--repeat");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "-o", "out.txt"},
             "--out: out.txt must end in .safetensors or .npy");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--scalar", "w=1"}, "only with --score");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--score", "s + w", "--scalar", "w"}, "must be NAME=NUMBER");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--score", "s + w", "--scalar", "w=one"},
             "--scalar w 'one'");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--max-seqlen-q", "8"}, "only with --cu-seqlens-q");
  checkUsage({"inspect"}, "--stage");
  checkUsage({"inspect", "--stage", "soup"}, "soup");
  checkUsage({"inspect", "--stage", "spec", "--head-dim", "0"}, "--head-dim");
  checkUsage({"inspect", "--stage", "spec", "--head-dim", "257"}, "--head-dim");
  checkUsage({"inspect", "--stage", "spec", "--spec", "nonsense"}, "--spec");
  checkUsage({"inspect", "--stage", "spec", "--score", "s +"}, "--score: ");
  checkUsage({"inspect", "--stage", "spec", "--target", "sm_1"}, "--target: ");
  checkUsage({"warmup", "--target", "vax"}, "--target: ");
  checkUsage({"warmup", "--target", "sm_80", "--arch", "sm_1"}, "--arch sm_1: ");
  checkUsage({"warmup", "--target", "cpu", "--arch", "sm_80"}, "--arch: only with a GPU target");
  checkUsage({"warmup", "--dtype", "bf16"}, "--head-dim: missing");
  checkUsage({"warmup", "--head-dim", "64", "--causal", "maybe"}, "--causal");
  checkUsage({"warmup", "--head-dim", "64,128,192", "--head-dim-v", "64,128"}, "--head-dim-v: has 2 values");
  checkUsage({"warmup", "--jobs", "0"}, "--jobs");
}

TEST_CASE("a flag that would do nothing is refused, and a file that can't be written names its flag") {
  checkUsage({"inspect", "--stage", "resources", "--disassembler", "/nope"},
             "--disassembler: only with --stage sass");
  checkUsage({"tune", "--table", "sm90.flash", "--record", "x.json", "--html", "x.html"},
             "--table: measures nothing, so that --html does not go with it");
  checkUsage({"tune", "--table", "sm90.flash", "--record", "x.json", "--shape", "1,8,8,1,1,16"}, "--shape");
  for (const char *file : {"--html", "--out"})
    checkUsage({"tune", "--device", "cpu", "--shape", "1,8,8,1,1,16", "--dry-run", file, "x"},
               std::string(file) + ": not with --dry-run");
  checkUsage({"bench", "--plot-title", "x"}, "--plot-title: only with --plot or --html");
  test::TemporaryFolder folder;
  for (const std::string &file : {std::string("/dev/null/x"), folder.path()})
    checkUsage({"run", "--random", "1,8,8,1,1,16", "--record-misses", file},
               "--record-misses: " + file + " cannot be written");
}

TEST_CASE("a misspelt verb, flag, target or GPU is answered with what may have been meant") {
  checkUsage({"warmpu"}, "unknown subcommand 'warmpu'");
  checkUsage({"warmpu"}, "; did you mean warmup?");
  checkUsage({"help", "bnech"}, "; did you mean bench?");
  checkUsage({"cache", "verfiy"}, "; did you mean verify?");
  checkUsage({"warmup", "--headdim", "64"}, "; did you mean --head-dim?");
  checkUsage({"bench", "--Head_Dim", "64"}, "; did you mean --head-dim?");
  checkUsage({"run", "--casual"}, "; did you mean --causal?");
  CHECK(runCli({"run", "--zzz"}).err.find("did you mean") == std::string::npos);
  checkUsage({"warmup", "--gpu", "h10"}, "'h10': is no GPU of the table; did you mean a10, h100 or h20?");
  checkUsage({"warmup", "--gpu", "voodoo"}, "it has a100, a800,");
  checkUsage({"inspect", "--stage", "spec", "--target", "sm_90"}, "type --target sm_90a for Hopper's own, or "
                                                                  "--target sm_80 --arch sm_90");
  checkUsage({"inspect", "--stage", "spec", "--target", "sm80"}, "did you mean sm_80");
  checkUsage({"inspect", "--stage", "spec", "--gpu", "h100", "--target", "cpu"}, "--gpu: not with --target");
  checkUsage({"emulate", "--random", "1,8,8,1,1,16", "--target", "cpu"}, "--target cpu: is no GPU");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--causal", "both"},
             "--causal: 'both' is for bench, tune and warmup");
  checkUsage({"bench", "--causal", "perhaps"}, "'perhaps' is not known; allowed are yes, no and both");
}

TEST_CASE("what a verb does not take is named in the order in which it was typed, and where it is taken") {
  checkUsage({"run", "--headdim", "64"},
             "flashplus: run has no flag --headdim; --head-dim is a flag of warmup, "
             "inspect, bench and tune (try 'flashplus run --help')");
  checkUsage({"run", "--page_sizes", "16", "--suite", "decode"},
             "run has no flag --page_sizes; did you mean --page-size? Nor has it --suite; --suite is a "
             "flag of bench (");
  checkUsage({"tune", "--headdim", "64", "--rouds", "3"},
             "tune has no flag --headdim; did you mean --head-dim? "
             "Nor has it --rouds; did you mean --rounds? (");
  checkUsage({"run", "--input", "x", "--output", "y"},
             "--input; did you mean --in? Nor has it --output; did you "
             "mean --out?");
  checkUsage({"bench", "--window-size", "3"}, "did you mean --window?");
  checkUsage({"bench", "--headdim=64"}, "bench has no flag --headdim; did you mean --head-dim? (");
  checkUsage({"run", "-random", "1,8"}, "run has no flag -random; did you mean --random? (");
  checkUsage({"run", "-x", "3"}, "run has no flag -x (");
  checkUsage({"inspect", "--headdim", "64"}, "did you mean --head-dim? --stage is required");
  checkUsage({"--verison"}, "flashplus: there is no flag --verison; did you mean --version?");
  checkUsage({"run", "more", "words"}, "run takes no 'more words' (");
  checkUsage({"bench", "head-dim", "64"}, "bench takes no 'head-dim 64'; did you mean --head-dim?");
  checkUsage({"run", "-5"}, "run takes no '-5' (");
  checkUsage({"cache", "lsit"}, "flashplus: cache: unknown subcommand 'lsit'");
  checkUsage({"cache", "lsit"}, "did you mean ls?");
  checkUsage({"help", "cache", "lz"}, "cache: unknown subcommand 'lz'");
  checkUsage({"help", "nothing"}, "flashplus: unknown subcommand 'nothing'");
  CHECK(runCli({"help", "cache", "ls"}).out == runCli({"cache", "ls", "--help"}).out);
}

TEST_CASE("a misspelt value is answered with what may have been meant") {
  checkUsage({"inspect", "--stage", "resorces"},
             "--stage: 'resorces' is not known; allowed are spec, score, attn, "
             "loops, llvm, ptx, asm, sass and resources; did you mean resources?");
  checkUsage({"inspect", "--stage", "SASS"}, "did you mean sass?");
  checkUsage({"inspect", "--stage", "loops", "--operation", "bakward"},
             "; did you mean backward or backward_q?");
  checkUsage({"emulate", "--async", "lat"}, "allowed are late, eager and random; did you mean late?");
  checkUsage({"bench", "--suite", "decod"},
             "--suite: 'decod' is not known; allowed are features and decode; did "
             "you mean decode?");
  checkUsage({"completion", "zsh"}, "'zsh' is not known; allowed is bash");
  checkUsage({"warmup", "--window", "on"}, "--window: 'on' is not known; allowed are yes, no, both and left");
  for (std::vector<std::string> verb : {std::vector<std::string>{"run", "--random", "1,8,8,1,1,16"},
                                        {"emulate", "--random", "1,8,8,1,1,16"},
                                        {"inspect", "--stage", "spec"},
                                        {"bench"},
                                        {"tune"},
                                        {"warmup"}}) {
    verb.insert(verb.end(), {"--dtype", "bf61"});
    checkUsage(verb, "--dtype: 'bf61' is not known; allowed are fp16, bf16 and fp32; did you mean bf16?");
  }
  checkUsage({"warmup", "--sinks", "nine"},
             "allowed are none, same, fp16, bf16 and fp32; did you mean none?");
  const auto spec = [](const std::string &dtype) {
    return runCli({"inspect", "--stage", "spec", "--dtype", dtype}).out;
  };
  CHECK(spec("bfloat16") == spec("bf16")); // PyTorch's names
  CHECK(spec("half") == spec("fp16"));
  CHECK(spec("float32") == spec("fp32"));
  CHECK(spec("fp32") != spec("fp16"));
  checkUsage(
      {"inspect", "--stage", "spec", "--schedule", "til_n=3"},
      "--schedule 'til_n=3': 'til_n' is no knob of cpu.flash; there are tile_m, tile_n, mr, nr, pairs; did "
      "you mean tile_n?");
  checkUsage({"inspect", "--stage", "spec", "--schedule", "cpu.flsh tile_n=64"},
             "'cpu.flsh' is no algorithm; there");
  checkUsage({"inspect", "--stage", "spec", "--schedule", "cpu.flsh tile_n=64"}, "; did you mean cpu.flash?");
}

TEST_CASE("a value of another kind is named with what is taken") {
  const std::vector<std::string> run = {"run", "--random", "1,8,8,1,1,16"};
  const auto refused = [](std::vector<std::string> words, const std::string &flag, const std::string &value,
                          const std::string &why) {
    words.push_back(value.empty() ? flag : flag + "=" + value);
    checkUsage(words, "flashplus: " + flag + ": " + why + " (try");
  };
  refused(run, "--scale", "abc", "'abc' is no number");
  refused(run, "--backward", "maybe", "'maybe' is given, and it takes no value");
  for (const char *flag : {"--seed", "--order-seed", "--step-limit"})
    for (const char *value : {"-1", "1.5", "x", "18446744073709551616"})
      refused({"emulate", "--random", "1,8,8,1,1,16"}, flag, value,
              "'" + std::string(value) + "' is no whole number from 0 to 2^64 - 1");
  refused({"warmup"}, "--jobs", "", "its value is missing");
  refused({"inspect"}, "--stage", "", "its value is missing");
  checkUsage({"run", "--out", "a.npy", "-o", "b.npy"}, "--out: is given 2 times; once is allowed");
}

TEST_CASE("an output is named after its format, and looked at before the work") {
  const std::string shape = "1,8,8,1,1,16";
  for (const char *verb : {"bench", "tune", "emulate"}) {
    std::vector<std::string> words = {verb, "--html", "x.png"};
    if (verb != std::string("bench"))
      words.insert(words.end(), {verb == std::string("tune") ? "--shape" : "--random", shape});
    checkUsage(words, "--html: x.png must end in .html or .htm, the format that is written");
  }
  // A folder of tuning records is read for files of this name.
  checkUsage({"tune", "--shape", shape, "--out", "mine"}, "--out: mine must end in .json");
  CHECK(runCli({"bench", "--json", "x.svg"}).err.find("--json: x.svg must end in .json") !=
        std::string::npos);
  test::TemporaryFolder folder;
  const std::string pipe = folder.path("pipe.json"), tall = folder.path(std::string(250, 'x') + ".json");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  checkUsage({"tune", "--shape", shape, "--out", pipe}, "pipe.json: exists and is not a regular file");
  checkUsage({"tune", "--shape", shape, "--out", tall}, "can't be created: File name too long");
  checkUsage({"run", "--random", shape, "--out", "/proc/x.npy"}, "--out: /proc/x.npy");
}

TEST_CASE("targets and chips have many names") {
  const auto target = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(),
                 {"warmup", "--list", "--head-dim", "64", "--dtype", "bf16", "--causal", "--json"});
    const auto result = runCli(flags);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return result.json()["variants"][0]["target"].get<std::string>();
  };
  CHECK(target({"--target", "hopper"}) == "sm_90a@sm_90a");
  CHECK(target({"--target", "Ada Lovelace"}) == "sm_80@sm_89");
  CHECK(target({"--target", "avx2"}) == "x86-64-v3");
  CHECK(target({"--target", "native"}) == target({"--target", "cpu"}));
  CHECK(target({"--target", "sm_80", "--arch", "h100"}) == "sm_80@sm_90");
  CHECK(target({"--target", "sm_80", "--arch", "rtx5090"}) == "sm_80@sm_120");
  CHECK(target({"--target", "sm_90a", "--arch", "h200"}) == "sm_90a@sm_90a");
  checkUsage({"warmup", "--target", "ampere"},
             "--target ampere: its GPUs have different chips; type those that you "
             "mean of sm_80, sm_86, sm_87");
  checkUsage({"warmup", "--target", "blackwell"}, "sm_100, sm_103, sm_120, sm_121");
  checkUsage({"warmup", "--target", "h1o0"}, "did you mean h100?");
}

TEST_CASE("GPUs by name and chips alone stand for their targets") {
  for (auto [flag, name, target] : {std::tuple{"--gpu", "h100", "sm_90a@sm_90a"},
                                    {"--gpu", "H200-SXM", "sm_90a@sm_90a"},
                                    {"--gpu", "RTX 4090", "sm_80@sm_89"},
                                    {"--gpu", "A100 80GB", "sm_80@sm_80"},
                                    {"--target", "l40s", "sm_80@sm_89"},
                                    {"--target", "sm_89", "sm_80@sm_89"},
                                    {"--target", "8.6", "sm_80@sm_86"}}) {
    auto result =
        runCli({"warmup", "--list", flag, name, "--head-dim", "64", "--dtype", "bf16", "--causal", "--json"});
    INFO(name);
    INFO(result.err);
    REQUIRE(result.code == 0);
    for (const auto &variant : result.json()["variants"])
      CHECK(variant["target"] == target);
    CHECK(result.json()["variants"].size() == 1);
  }
}

TEST_CASE("--causal is spelt alike everywhere, and sizes may have units") {
  const auto variants = [](std::vector<std::string> causal) {
    std::vector<std::string> words = {"warmup", "--list",  "--target", "sm_80", "--head-dim",
                                      "64",     "--dtype", "bf16",     "--json"};
    words.insert(words.end(), causal.begin(), causal.end());
    return runCli(words).json()["variants"];
  };
  CHECK(variants({"--causal"}) == variants({"--causal", "1"}));
  CHECK(variants({"--causal"}) == variants({"--causal", "yes"}));
  CHECK(variants({"--causal", "no"}) != variants({"--causal"}));
  CHECK(variants({"--causal", "0,1"}) == variants({"--causal", "both"}));
  CHECK(variants({}).size() == 2);
  checkUsage({"run", "--random", "1,1k,1Q,1,1,16"},
             "--random '1,1k,1Q,1,1,16': column 6: '1Q' is no integer; one may have a unit (4k is 4096");
  // Columns are those of what was typed.
  checkUsage({"run", "--random", "4k,x,1,1,1,16"}, "--random '4k,x,1,1,1,16': column 4: 'x' is no integer");
  checkUsage({"run", "--random", "4k,,1,1,1,16"}, "column 4: '' is no integer");
  checkUsage({"run", "--random", "1,1,9223372036854775807k,1,1,16"},
             "column 5: '9223372036854775807k' is too large; the largest is 2^63 - 1, units (k, M and G)");
  checkUsage({"run", "--random", "1,1,9223372036854775808,1,1,16"}, "is too large");
  checkUsage({"run", "--random", "-1k,1,1,1,1,16"}, "column 1: '-1k' is no integer");
  checkUsage({"bench", "--seqlen", "4e9k"}, "--seqlen: '4e9k' is no integer; one may have a unit");
  checkUsage({"bench", "--seqlen", "16,99999999999G"}, "--seqlen: '99999999999G' is too large");
  checkUsage({"bench", "--tokens", "some"}, "--tokens: 'some' is no integer");
  checkUsage({"bench", "--seqlen", "-5"}, "--seqlen");
  checkUsage({"run", "--random", "1,8,8,1,1,1k"}, "q has head_dim 1024");
}

TEST_CASE("inspect completes schedules, and knows the kernel of a score's own gradients") {
  const auto spec = [](std::vector<std::string> more) {
    std::vector<std::string> words = {"inspect", "--stage", "spec", "--target", "sm_80", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    auto result = runCli(words);
    INFO(result.err);
    CHECK(result.code == 0);
    return result.json();
  };
  const std::string whole = spec({"--schedule", "tile_n=32,warps=4"})["schedule"];
  CHECK(whole.starts_with("sm80.flash "));
  CHECK(whole.find("tile_n=32") != std::string::npos);
  CHECK(whole.find("stages=") != std::string::npos);
  const std::vector<std::string> score = {"--operation", "backward_score", "--score", "s + bias[h] * w"};
  const auto kernel = [&](const char *names) {
    std::vector<std::string> words = score;
    words.insert(words.end(), {"--score-gradients", names});
    return spec(words)["spec"].get<std::string>();
  };
  CHECK(kernel("w").starts_with("backward_score "));
  CHECK(kernel("w").find("score_grads=1 ") != std::string::npos);
  CHECK(kernel("bias").find("score_grads=256 ") != std::string::npos);
  CHECK(kernel("all").find("score_grads=257 ") != std::string::npos);
  CHECK(spec(score)["spec"] == kernel("all"));
  checkUsage({"inspect", "--stage", "spec", "--operation", "backward_score"},
             "has no scalars or tensors of its own");
  checkUsage({"inspect", "--stage", "spec", "--score-gradients", "x", "--operation", "backward_score",
              "--score", "s + bias[h] * w"},
             "allowed are w, bias and all");
  checkUsage({"warmup", "--score-gradients", "w"}, "--score-gradients: only with --backward");
  checkUsage({"inspect", "--stage", "sass"}, "its machine code is --stage asm");
}

TEST_CASE("with --json a failure is JSON too") {
  auto result = runCli({"run", "--json", "--frobnicate"});
  CHECK(result.code == 2);
  CHECK(result.json()["error"]["status"] == "invalid_argument");
  CHECK(result.json()["error"]["message"].get<std::string>().find("--frobnicate") != std::string::npos);
}

TEST_CASE("unreadable and lying files are bad input, and are named") {
  test::TemporaryFolder folder;
  std::string lying = folder.path("lying.npy"), absent = folder.path("absent.npy");
  test::writeText(lying, "\x93NUMPY is not what follows");
  checkUsage({"run", "--in", folder.path("absent.safetensors")}, "absent.safetensors: can't be opened");
  checkUsage({"run", "--in", lying}, "lying.npy");
  checkUsage({"run", "--in", folder.path()}, "not a regular file");
  checkUsage({"run", "--q", lying, "--k", absent, "--v", absent}, "--q: " + lying);
  checkUsage({"run", "--q", lying}, "lying.npy");
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--alibi", absent}, "--alibi: " + absent);
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--cu-seqlens-q", lying}, "--cu-seqlens-q: " + lying);
  checkUsage({"run", "--random", "1,8,8,1,1,16", "--score", "s+t[q]", "--tensor", "t=" + absent}, absent);

  io::Tensor flat = *io::makeTensor(io::ElementType::F32, {8, 16});
  std::string two = folder.path("two.npy");
  REQUIRE(io::writeNpy(two, flat).isOk());
  checkUsage({"run", "--q", two, "--k", two, "--v", two},
             "q: shape (8, 16), must be (batch, seqlen, heads, head_dim)");
  io::Tensor integers = *io::makeTensor(io::ElementType::I32, {1, 8, 1, 16});
  std::string whole = folder.path("int.npy");
  REQUIRE(io::writeNpy(whole, integers).isOk());
  checkUsage({"run", "--q", whole, "--k", whole, "--v", whole}, "q: dtype int32, allowed are");
}

TEST_CASE("sequence lengths that do not lie inside the tensors are refused before anything runs") {
  test::TemporaryFolder folder;
  io::Tensor rows = *io::makeTensor(io::ElementType::F16, {10, 1, 16});
  std::string qkv = folder.path("qkv.npy");
  REQUIRE(io::writeNpy(qkv, rows).isOk());
  auto cu = [&](const std::string &name, std::vector<int32_t> values) {
    io::Tensor tensor = *io::makeTensor(io::ElementType::I32, {static_cast<int64_t>(values.size())});
    std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
    REQUIRE(io::writeNpy(folder.path(name), tensor).isOk());
    return folder.path(name);
  };
  std::string good = cu("good.npy", {0, 4, 10});
  auto refused = [&](const std::string &cu_q, const std::string &text, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "run", "--q", qkv, "--k", qkv, "--v", qkv, "--cu-seqlens-k", good, "--cu-seqlens-q", cu_q};
    arguments.insert(arguments.end(), more.begin(), more.end());
    checkUsage(arguments, text);
  };
  refused(cu("a.npy", {1, 4, 10}), "element 0 = 1, must be 0");
  refused(cu("b.npy", {0, 4, 3}), "element 2 = 3, must be from 4");
  refused(cu("c.npy", {0, 4, 11}), "element 2 = 11");
  refused(cu("d.npy", {0, 10}), "--cu-seqlens-k: 2 sequences, --cu-seqlens-q has 1");
  refused(cu("e.npy", {0}), "must be (batch + 1,)");
  refused(good, "--max-seqlen-q 5: must be at least 6", {"--max-seqlen-q", "5"});
  refused(good, "--seqused-k: element 1 = 7, must be from 0 to 6", {"--seqused-k", cu("u.npy", {4, 7})});
  checkUsage({"run", "--q", qkv, "--k", qkv, "--v", qkv, "--cu-seqlens-q", good}, "go together");
}

TEST_CASE("devices lists the CPU, and says why other devices are not there") {
  auto result = runCli({"devices", "--json"});
  CHECK(result.code == 0);
  auto json = result.json();
  REQUIRE(json.is_object());
  bool cpu = false;
  for (const auto &device : json["devices"])
    cpu |= device["name"] == "cpu";
  CHECK(cpu);
  for (const auto &missing : json["missing"])
    CHECK(missing["reason"].get<std::string>() != "");
  auto text = runCli({"devices"});
  CHECK(text.code == 0);
  CHECK(text.out.find("cpu") != std::string::npos);
}

TEST_CASE("a machine without the device says so and leaves with 1") {
  auto result = runCli({"run", "--random", "1,8,8,1,1,16", "--device", "cuda:31"});
  CHECK(result.code == 1);
  CHECK(result.out == "");
  CHECK(result.err.find("flashplus: ") != std::string::npos);
}
