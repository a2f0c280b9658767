// SPDX-License-Identifier: BSD-3-Clause
// Decode from the command line: run, emulate, bench and tune of decode steps, warm-up by a model's config.
#include <doctest/doctest.h>

#include "tests/tools/cli.h"

#include <algorithm>
#include <set>

using namespace flashplus;
using nlohmann::json;
using test::runCli;

namespace {

void refused(const std::vector<std::string> &arguments, const std::string &text) {
  auto result = runCli(arguments);
  INFO(result.err);
  CHECK(result.code == 2);
  CHECK(result.out == "");
  CHECK_MESSAGE(result.err.find(text) != std::string::npos, text);
}

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

} // namespace

TEST_CASE("bad usage of a decode step names the flag") {
  const std::vector<std::string> step = {"run", "--device", "cpu", "--decode", "2,8,1,1,16"};
  refused({"run", "--decode", "2,8,1,1,16,16,3"}, "--decode '2,8,1,1,16,16,3': has 7 integers");
  refused({"run", "--decode", "2,8,1,0,16"}, "--decode '2,8,1,0,16': HK = 0");
  refused({"run", "--decode", "2,8,1,1,16", "--random", "1,1,1,1,1,16"}, "exactly one of");
  refused({"run", "--random", "1,1,1,1,1,16", "--rows", "2"}, "--rows and --ragged: only with --decode");
  refused({"run", "--random", "1,1,1,1,1,16", "--ragged"}, "--rows and --ragged: only with --decode");
  refused(joined(step, {"--rows", "9"}), "--rows 9: must be at most 8, the SK of --decode");
  refused(joined(step, {"--append", "9"}), "--append 9: must be at most 8, the rows of k");
  refused({"emulate", "--random", "1,1,8,1,1,16", "--rotary", "16"},
          "--rotary and --rotary-interleaved: only with");
  refused({"emulate", "--random", "1,1,8,1,1,16", "--append", "1", "--backward"},
          "--append: not with --backward");
  refused({"bench", "--suite", "decode", "--backward", "--device", "cpu"}, "--backward: not with --suite");
  refused({"bench", "--suite", "decode", "--seqlen", "8", "--device", "cpu"},
          "--suite decode: chooses its own");
  refused({"bench", "--device", "cpu", "--page-size", "4", "--backward"}, "--page-size: not with --backward");
}

TEST_CASE("warm-up by a model's config: what a server meets, and a training run") {
  test::TemporaryFolder folder;
  auto list = [&](const std::string &config, const std::vector<std::string> &more = {}) {
    const std::string path = folder.path("config.json");
    test::writeText(path, config);
    auto result = runCli(joined({"warmup", "--model", path, "--target", "sm_80", "--list", "--json"}, more));
    INFO(result.err);
    REQUIRE(result.code == 0);
    std::set<std::string> specs;
    const json found = result.json();
    for (const json &row : found["variants"]) {
      CHECK(row["for"].get<std::string>() != "");
      specs.insert(row["spec"]);
    }
    return specs;
  };
  using Specs = std::set<std::string>;
  auto served = [](const std::string &spec) {
    return Specs{spec, spec + " keys=paged", spec + " append=1", spec + " keys=paged append=1"};
  };
  auto merged = [](Specs a, const Specs &b) {
    a.insert(b.begin(), b.end());
    return a;
  };
  const std::string llama = R"({"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32,
      "num_key_value_heads": 8, "torch_dtype": "bfloat16", "attention_dropout": 0.0})";
  const std::string causal = "forward dtype=bf16 dqk=128 dv=128 right=1";
  CHECK(list(llama) == served(causal));
  CHECK(list(llama, {"--causal", "no", "--dtype", "fp16"}) == served("forward dtype=fp16 dqk=128 dv=128"));
  Specs trained = served(causal);
  trained.insert("backward dtype=bf16 dqk=128 dv=128 right=1");
  CHECK(list(llama, {"--backward"}) == trained);
  // head_dim wins over hidden_size; both kinds of layers; dropout in training.
  const auto gemma = list(R"({"text_config": {"head_dim": 256, "hidden_size": 2304, "num_attention_heads": 8,
      "num_key_value_heads": 4, "sliding_window": 4096, "attention_dropout": 0.1,
      "layer_types": ["sliding_attention", "full_attention"], "dtype": "float16"}, "vision_config": {}})",
                          {"--backward"});
  const std::string full = "dtype=fp16 dqk=256 dv=256 right=1",
                    window = "dtype=fp16 dqk=256 dv=256 left=1 right=1";
  Specs wanted = merged(served("forward " + full), served("forward " + window));
  for (const std::string &rest : {full, window})
    wanted = merged(
        wanted, {"backward " + rest, "backward " + rest + " dropout=1", "forward " + rest + " dropout=1"});
  CHECK(gemma == wanted);
  // Sinks, of the model's dtype, in all of its layers; the backward finds them in the LSE.
  Specs sinks = {"backward dtype=bf16 dqk=64 dv=64 right=1",
                 "backward dtype=bf16 dqk=64 dv=64 left=1 right=1"};
  for (const char *mask : {"right=1", "left=1 right=1"})
    for (const char *cache : {"", " keys=paged", " append=1", " keys=paged append=1"})
      sinks.insert("forward dtype=bf16 dqk=64 dv=64 " + std::string(mask) + cache + " sinks=bf16");
  CHECK(list(R"({"model_type": "gpt_oss", "head_dim": 64, "hidden_size": 2880, "num_attention_heads": 64,
      "num_key_value_heads": 8, "sliding_window": 128, "torch_dtype": "bfloat16",
      "layer_types": ["sliding_attention", "full_attention"]})",
             {"--backward"}) == sinks);
  // A window that the file has, and does not use; a softcap; heads of another size for v.
  CHECK(
      list(R"({"head_dim": 64, "sliding_window": 128, "use_sliding_window": false, "dtype": "bfloat16"})") ==
      served("forward dtype=bf16 dqk=64 dv=64 right=1"));
  const auto capped = list(R"({"head_dim": 64, "attn_logit_softcapping": 50.0, "dtype": "bfloat16"})");
  CHECK(
      std::ranges::all_of(capped, [](const std::string &s) { return s.find("tanh") != std::string::npos; }));
  const auto latent =
      list(R"({"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "dtype": "bfloat16"})");
  CHECK(latent.contains("forward dtype=bf16 dqk=192 dv=128 right=1"));

  auto bad = [&](const std::string &config, const std::string &text,
                 const std::vector<std::string> &more = {}) {
    const std::string path = folder.path("bad.json");
    test::writeText(path, config);
    refused(joined({"warmup", "--model", path, "--target", "sm_80", "--list"}, more), text);
  };
  bad("[1]", "does not hold a JSON object");
  bad(R"({"num_attention_heads": 8})", "it has neither head_dim nor hidden_size and num_attention_heads");
  bad(R"({"head_dim": 512})", "head_dim is 512, must be 1 to 256");
  bad(R"({"hidden_size": 65, "num_attention_heads": 4})",
      "hidden_size is 65, must be a multiple of num_attention_heads, 4");
  bad(R"({"head_dim": "x"})", "head_dim is \"x\", must be a whole number");
  bad(R"({"head_dim": 64, "torch_dtype": "float8"})", "torch_dtype is \"float8\", must be float16");
  bad(R"({"head_dim": 64, "num_attention_heads": 8, "num_key_value_heads": 3})",
      "num_key_value_heads is 3, must be a divisor of num_attention_heads, 8");
  bad(R"({"head_dim": 64, "layer_types": ["linear_attention"]})", "it has no layer of attention");
  bad(llama, "--model: of the flags that choose variants, only --dtype and --causal", {"--head-dim", "64"});
  bad(llama, "--model: has --paged and --append of itself", {"--paged"});
  refused({"warmup", "--model", "/nowhere.json"}, "--model: /nowhere.json");
}

#ifdef FLASHPLUS_HAS_COMPILER

TEST_CASE("decode steps are run and held against the reference, on the CPU and in the emulator") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::vector<std::string> all = {"--ragged", "--page-size", "16", "--pages", "random", "--append",
                                        "2",        "--rotary",    "32", "--rows",  "2"};
  for (const std::vector<std::string> &more : {std::vector<std::string>{}, all}) {
    const auto ran = runCli(
        joined({"run", "--decode", "3,90,4,2,32", "--device", "cpu", "--repeat", "0", "--check", "--json"},
               more),
        cache);
    REQUIRE_MESSAGE(ran.code == 0, ran.err << ran.out);
    CHECK(ran.json()["check"]["good"] == true);
    CHECK(ran.json()["input"]["q"] == json({3, more.empty() ? 1 : 2, 4, 32}));
    CHECK(ran.json().dump().find("right=1") != std::string::npos); // causal
  }
  const auto emulated =
      runCli(joined({"emulate", "--decode", "2,90,4,2,32", "--check", "--json"}, all), cache);
  REQUIRE_MESSAGE(emulated.code == 0, emulated.err << emulated.out);
  const json found = emulated.json();
  CHECK(found["check"]["good"] == true);
  CHECK(found["check"]["cache"] == "");
  REQUIRE(found["launches"].size() == 2);
  CHECK(found["launches"][0]["entry"].get<std::string>().find("append") != std::string::npos);
  // Lengths are those of the seed.
  auto error = [&](const char *seed) {
    return runCli({"run", "--decode", "3,90,4,2,32", "--ragged", "--seed", seed, "--device", "cpu",
                   "--repeat", "0", "--check", "--json"},
                  cache)
        .json()["check"]["absolute_error"];
  };
  CHECK(error("1") == error("1"));
  CHECK(error("1") != error("2"));
}

TEST_CASE("bench --suite decode: microseconds, and shares of what memory gives") {
  test::TemporaryFolder folder;
  const std::vector<std::string> suite = {"bench",    "--suite", "decode",   "--device", "cpu",
                                          "--tokens", "16",      "--rounds", "1",        "--milliseconds",
                                          "0.05",     "--roof",  "10"};
  const auto result = runCli(joined(suite, {"--json"}), folder.path("cache"));
  REQUIRE_MESSAGE(result.code == 0, result.err);
  const json found = result.json();
  CHECK(found["suite"] == "decode");
  CHECK(found["roof_bytes_per_second"] == 1e10);
  std::set<std::string> series;
  for (const json &cell : found["cells"]) {
    series.insert(cell["series"]);
    CHECK(cell["share_of_roof"].get<double>() ==
          doctest::Approx(cell["bytes_per_second"].get<double>() / 1e10).epsilon(1e-4));
    double keys = 0;
    for (int64_t b = 0; b < cell["batch"]; ++b)
      keys += cell.contains("keys")     ? cell["keys"][size_t(b)].get<double>()
              : cell.contains("window") ? 8
                                        : cell["seqlen_k"].get<double>();
    CHECK(cell["key_bytes"].get<double>() ==
          keys * cell["heads_k"].get<double>() * 4 * cell["head_dim"].get<double>());
  }
  for (const char *name : {"GQA 32/8 D 128", "MHA 8/8 D 128", "GQA 16/2 D 64", "pages of 1", "append, rotary",
                           "8 query rows", "window 8", "ragged lengths"})
    CHECK_MESSAGE(series.contains(name), name);
  const auto text = runCli(suite, folder.path("cache"));
  CHECK(text.out.find(" us ") != std::string::npos);
  CHECK(text.out.find("roof: 10 GB/s, of --roof") != std::string::npos);
}

TEST_CASE("tune: what is measured of a decode step is for decode steps, and for no more rows") {
  test::TemporaryFolder folder;
  const std::string cache = folder.path("cache"), record = folder.path("mine.json");
  const auto tuned = runCli({"tune",
                             "--device",
                             "cpu",
                             "--shape",
                             "2,1,300,4,2,16",
                             "--causal",
                             "1",
                             "--algorithm",
                             "cpu.stream",
                             "--knob",
                             "heads=4",
                             "--knob",
                             "tile_m=4",
                             "--knob",
                             "tile_n=32",
                             "--rounds",
                             "1",
                             "--coarse-rounds",
                             "1",
                             "--milliseconds",
                             "0.1",
                             "-o",
                             record},
                            cache);
  REQUIRE_MESSAGE(tuned.code == 0, tuned.err);
  json made = json::parse(test::readText(record));
  REQUIRE(made["cells"].size() == 1);
  CHECK(made["cells"][0]["queries"] == 1);
  CHECK(made["cells"][0]["keys"] == 300);
  const std::string wanted = "cpu.stream heads=4 tile_m=4 tile_n=32";
  made["cells"][0]["best"] = wanted;
  test::writeText(record, made.dump());
  ::setenv("FLASHPLUS_TUNING", record.c_str(), 1);
  auto plan = [&](const char *sizes) {
    return runCli({"run", "--random", sizes, "--causal", "--device", "cpu", "--repeat", "0", "--json"}, cache)
        .json()["plan"];
  };
  const json decode = plan("3,1,500,4,2,16"), prefill = plan("1,300,300,4,2,16");
  ::unsetenv("FLASHPLUS_TUNING");
  CHECK(decode["schedule_source"] == record);
  CHECK(decode["steps"][0]["schedule"] == wanted);
  CHECK(prefill["schedule_source"] == "default table");
}

TEST_CASE("tune knows the kernels that merge their shares, and of them those with room for the rows") {
  test::TemporaryFolder folder;
  auto tuned = [&](const char *sizes) {
    return runCli({"tune", "--device", "emulator", "--shape", sizes, "--causal", "1", "--algorithm",
                   "sm80.decode", "--knob", "warps=2", "--knob", "stages=2", "--knob", "least=4", "--knob",
                   "l2=0", "--dry-run"},
                  folder.path("cache"));
  };
  auto counted = [&](const char *sizes) {
    const auto result = tuned(sizes);
    REQUIRE_MESSAGE(result.code == 0, result.err);
    return result.out;
  };
  // Of tiles of 8, 16 and 32 rows, each for 16 and 32 keys a step; and what the library takes by itself.
  CHECK(counted("1,1,200,8,1,64").find("7 schedules, 1 lengths") == 0);
  CHECK(counted("1,2,200,8,1,64").find("5 schedules, 1 lengths") == 0);
  const auto prefill = tuned("1,200,200,8,1,64"); // which they are not for
  CHECK(prefill.code == 2);
  CHECK(prefill.err.find("no schedule of these problems") != std::string::npos);
}

#endif // FLASHPLUS_HAS_COMPILER
