// SPDX-License-Identifier: BSD-3-Clause
// What reports are made of, with numbers that no short run gives: intervals of many rounds, data sheets of
// machines that are not here, verdicts of kernels that are wrong.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "tools/flashplus/interrupt.h"
#include "tools/flashplus/machine.h"
#include "tools/flashplus/noise.h"
#include "tools/flashplus/report.h"

#include <cerrno>
#include <csignal>
#include <numeric>
#include <sys/wait.h>
#include <unistd.h>

using namespace flashplus;
using namespace flashplus::tool;

namespace {

MedianInterval ofFirst(size_t n) {
  std::vector<double> values(n);
  std::iota(values.rbegin(), values.rend(), 0);
  return medianInterval(values);
}

size_t count(const std::string &text, const std::string &part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size())
    ++n;
  return n;
}

bool has(const std::string &text, const std::string &part) { return count(text, part) > 0; }

Roofs roofsOfModel(const std::string &model) { return roofsOf({{"device", {{"model", model}}}}); }

Json resultOf(const std::string &model, const std::string &series = "ours") {
  return {{"device", {{"model", model}}},
          {"cells",
           {{{"series", series},
             {"head_dim", 64},
             {"seqlen", 128},
             {"batch", 2},
             {"heads", 4},
             {"flops", 1e9},
             {"seconds", {1e-4, 1e-4}},
             {"tflops", 10.0}}}}};
}

Json emulated() { return {{"target", "sm_80"}, {"problem", "random"}, {"launches", Json::array()}}; }

const Json kGoodCheck = {{"good", true},      {"error", 0.01},     {"bound", 0.02},
                         {"lse_error", 1e-7}, {"lse_bound", 1e-6}, {"cache", ""}};
const Json kGoodPart = {
    {"good", true}, {"error", 0.01}, {"bound", 0.02}, {"rms", 0.001}, {"rms_bound", 0.002}};

} // namespace

TEST_CASE("an interval of the median has the binomial's confidence, however many rounds there are") {
  // n, how many values are left out on either side, confidence: by integers.
  for (const auto &[n, left_out, confidence] : {std::tuple{1u, 0u, 0.0},
                                                {2u, 0u, 0.5},
                                                {5u, 0u, 0.9375},
                                                {6u, 0u, 0.96875},
                                                {1074u, 504u, 0.952728117567383},
                                                {1075u, 504u, 0.9559335206201514},
                                                {1076u, 505u, 0.9525218292521057},
                                                {10000u, 4901u, 0.9511670501036181}}) {
    CAPTURE(n);
    const MedianInterval interval = ofFirst(n);
    CHECK(interval.low == left_out);
    CHECK(interval.high == n - 1 - left_out);
    CHECK(interval.median == (n - 1) / 2.0);
    CHECK(interval.confidence == doctest::Approx(confidence).epsilon(1e-9));
  }
  CHECK(knownTo(ofFirst(1)) == "-");
  CHECK(knownTo(medianInterval({1, 1, 1})) == "+-0 %");
}

TEST_CASE("a time that was measured once or twice is not quiet, and hides no other") {
  const MedianInterval once = medianInterval({1}), twice = medianInterval({1, 1}),
                       five = medianInterval({1, 1, 1, 1, 1}), wide = medianInterval({1, 2, 3, 4, 5, 6});
  CHECK(noiseVerdict({five, five}).quiet);
  CHECK(noiseVerdict({five}).text.starts_with("Quiet. "));
  for (const std::vector<MedianInterval> &some : {std::vector{twice}, {five, twice}, {five, once}}) {
    CHECK(!noiseVerdict(some).quiet);
    CHECK(has(noiseVerdict(some).text, "Too few rounds. "));
  }
  CHECK(has(noiseVerdict({five, twice}).text, "at least 50 %"));
  const NoiseVerdict mixed = noiseVerdict({once, five, wide});
  CHECK(mixed.text.starts_with("Noisy. "));
  CHECK(has(mixed.text, "at least 93.8 %"));
  CHECK(has(mixed.text, "Of 1 of 3 times, measured once,"));
  CHECK(noiseVerdict({once, once}).text.starts_with("Each time was measured once"));
  CHECK(has(noiseVerdict({}).text, "No time of a round is known"));
}

TEST_CASE("a data sheet is that of the device by all of its name") {
  for (const auto &[model, tflops, gigabytes, row] : {std::tuple{"NVIDIA H200", 989.5, 4800, "H200"},
                                                      {"NVIDIA H200 NVL", 835.5, 4800, "H200 NVL"},
                                                      {"NVIDIA GH200 480GB", 989.5, 4000, "GH200"},
                                                      {"NVIDIA H100 80GB HBM3", 989.5, 3350, "H100"},
                                                      {"NVIDIA H100 PCIe", 756.5, 2000, "H100 PCIe"},
                                                      {"NVIDIA H100 NVL", 835.5, 3900, "H100 NVL"},
                                                      {"NVIDIA H800", 989.5, 3350, "H800"},
                                                      {"NVIDIA H20", 148, 4000, "H20"},
                                                      {"NVIDIA A100-SXM4-40GB", 312, 1555, "A100"},
                                                      {"NVIDIA A100-PCIE-40GB", 312, 1555, "A100"},
                                                      {"NVIDIA A100-SXM4-80GB", 312, 2039, "A100-SXM4-80GB"},
                                                      {"NVIDIA A100 80GB PCIe", 312, 1935, "A100 80GB"},
                                                      {"NVIDIA A800-SXM4-80GB", 312, 2039, "A800-SXM4-80GB"},
                                                      {"NVIDIA A800 80GB PCIe", 312, 1935, "A800 80GB"},
                                                      {"NVIDIA A30", 165, 933, "A30"},
                                                      {"NVIDIA A40", 149.7, 696, "A40"},
                                                      {"NVIDIA L40S", 362, 864, "L40S"},
                                                      {"NVIDIA L40", 181, 864, "L40"},
                                                      {"NVIDIA L4", 121, 300, "L4"},
                                                      {"Tesla A100", 312, 1555, "A100"}}) {
    CAPTURE(model);
    const Roofs roofs = roofsOfModel(model);
    CHECK(roofs.flops == doctest::Approx(1e12 * tflops));
    CHECK(roofs.bytes == doctest::Approx(1e9 * gigabytes));
    CHECK(roofs.flops_source == "data sheet of the " + std::string(row));
  }
  for (const char *model :
       {"", "NVIDIA RTX A4000", "NVIDIA RTX A3000 Laptop GPU", "NVIDIA RTX 4000 SFF Ada Generation",
        "NVIDIA H20-3e", "NVIDIA GH200 144G HBM3e", "NVIDIA H800 PCIe", "NVIDIA A40-48Q", "GRID A100-10C",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA GB200", "NVIDIA A10", "NVIDIA A100 80GB A30"}) {
    CAPTURE(model);
    CHECK(roofsOfModel(model).flops == 0);
    CHECK(roofsOfModel(model).bytes == 0);
    CHECK(has(roofsOfModel(model).flops_source, "not known; --peak"));
  }
}

TEST_CASE("a file that is no result names itself, whatever is wrong with it") {
  const auto refused = [](Json result, const std::string &text) {
    const auto found =
        measurementsOf({{resultOf("NVIDIA H200"), "good", ""}, {result, "bad", "--overlay dir/bad.json"}});
    REQUIRE(!found);
    INFO(found.status().message());
    CHECK(found.status().code() == StatusCode::InvalidArgument);
    CHECK(found.status().message().starts_with("--overlay dir/bad.json: "));
    CHECK(has(found.status().message(), text));
  };
  refused(Json::object(), "holds no cells");
  refused({{"cells", 7}}, "holds no cells");
  refused({{"cells", {7}}}, "is not a result file");
  Json text = resultOf("x");
  text["cells"][0]["batch"] = "two";
  refused(text, "is not a result file");
  text = resultOf("x");
  text["dtype"] = 16;
  refused(text, "is not a result file");
  text = resultOf("x");
  text["roof_flops_per_second"] = "fast";
  refused(text, "is not a result file");
  for (const Json &device :
       {Json("H200"), Json(nullptr), Json(7), Json({{"model", 7}})}) { // no model, but cells
    text = resultOf("x");
    text["device"] = device;
    CHECK(deviceModel(text) == "");
    CHECK(measurementsOf({{text, "odd", ""}}));
    CHECK(benchReport({{text, "odd", ""}}, ""));
  }
}

TEST_CASE("a report of two machines holds each under its own roofs, and a series has one name everywhere") {
  const auto page = benchReport({{resultOf("NVIDIA H200"), "a", ""}, {resultOf("NVIDIA A30"), "b", ""}}, "");
  REQUIRE(page);
  const std::string roofline = page->substr(page->find("<section id=\"roofline\">"));
  const std::string part = roofline.substr(0, roofline.find("</section>"));
  CHECK(count(part, "<svg") == 2);
  CHECK(has(part, "data sheet of the H200"));
  CHECK(has(part, "data sheet of the A30"));
  CHECK(count(part, "circle") == 2 * 2 * 1 + 2 * 2 * 1); // with end tags: a point and its legend in each
  CHECK(has(*page, "FlashAttention-Plus (NVIDIA A30)"));
  // The same machine twice: one roofline.
  const auto both = benchReport({{resultOf("NVIDIA H200"), "a", ""}, {resultOf("NVIDIA H200"), "b", ""}}, "");
  REQUIRE(both);
  CHECK(has(*both, "FlashAttention-Plus (b)"));
  CHECK(count(both->substr(both->find("<section id=\"roofline\">")), "<svg") == 1);
}

TEST_CASE("the page of an emulation is as red as its worst verdict") {
  Json good = emulated();
  good["check"] = kGoodCheck;
  good["backward"] = {{"check", {{"good", true}, {"parts", {{"dq", kGoodPart}, {"dk", kGoodPart}}}}}};
  const std::string page = emulateReport(good);
  CHECK(count(page, "class=\"bad\"") == 0);
  CHECK(count(page, "Right") == 5); // o, lse, the cache, dq, dk
  const auto bad = [&](const Json &whole, const std::string &text) {
    const std::string shown = emulateReport(whole);
    INFO(text);
    CHECK(count(shown, "class=\"bad\"") == 1);
    CHECK(has(shown, text));
  };
  Json one = good;
  one["backward"]["check"]["good"] = one["backward"]["check"]["parts"]["dq"]["good"] = false;
  one["backward"]["check"]["parts"]["dq"]["error"] = nullptr; // not finite
  bad(one, "dq: WRONG against fp64: error inf");
  one = good;
  one["check"]["good"] = false;
  one["check"]["cache"] = "key 3 of sequence 0";
  bad(one, "cache: WRONG: key 3 of sequence 0");
  one = good;
  one["check"]["good"] = false;
  one["check"]["lse_error"] = 1e-3;
  bad(one, "log-sum-exp: WRONG");
  one = good;
  one["check"]["good"] = false;
  one["check"]["error"] = 0.5;
  bad(one, "WRONG against fp64: error 0.5");
  for (const char *pass : {"check", "backward"}) { // a verdict that no number explains
    one = good;
    (one[pass].contains("check") ? one[pass]["check"] : one[pass])["good"] = false;
    bad(one, "WRONG: the check failed.");
  }
  CHECK(has(emulateReport(emulated()), "was not compared"));
}

TEST_CASE("a signal's handler leaves errno alone, and the exit status says which signal it was") {
  for (int signal : {SIGINT, SIGTERM}) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      catchInterrupts();
      const Interruptible asks;
      ::close(STDERR_FILENO); // so that the handler's own write fails
      errno = ERANGE;
      std::raise(signal);
      ::_exit(errno == ERANGE && interrupted() ? exitInterrupted() : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WEXITSTATUS(status) == 128 + signal);
  }
}
