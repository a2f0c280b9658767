// SPDX-License-Identifier: BSD-3-Clause
// The backward's kernels, whole, against gradients in fp64: masks, tails, empty sequences, groups of heads,
// every form of the schedules; and that planted bugs do not pass.
#include "tests/emulator/backward.h"

#include <doctest/doctest.h>

using namespace flashplus;
using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

std::vector<BackwardShape> shapes() {
  std::vector<BackwardShape> s;
  for (DType t : {DType::BF16, DType::F16})
    for (int n : {1, 63, 64, 65, 129})
      s.push_back({{.name = std::string(dtypeName(t)) + " length " + std::to_string(n),
                    .dtype = t,
                    .seqlen_q = n,
                    .seqlen_k = n,
                    .window_right = n % 2 ? 0 : -1}});
  s.push_back({{.name = "more queries, causal", .seqlen_q = 190, .seqlen_k = 50, .window_right = 0}});
  s.push_back(
      {{.name = "more keys, causal", .seqlen_q = 50, .seqlen_k = 190, .window_right = 0}, .dlse = true});
  s.push_back({{.name = "window", .seqlen_q = 100, .seqlen_k = 300, .window_left = 30, .window_right = 9}});
  s.push_back({{.name = "window on the left only", .seqlen_q = 80, .seqlen_k = 200, .window_left = 40}});
  s.push_back({{.name = "window that leaves rows and keys empty",
                .seqlen_q = 300,
                .seqlen_k = 40,
                .window_left = 5,
                .window_right = 5},
               .dlse = true});
  for (int64_t group : {1, 3, 8})
    s.push_back({{.name = "group of " + std::to_string(group),
                  .batch = 2,
                  .seqlen_q = 70,
                  .seqlen_k = 90,
                  .heads_q = 2 * group,
                  .heads_k = 2,
                  .window_right = 0}});
  s.push_back({{.name = "ragged with empty sequences",
                .heads_q = 2,
                .heads_k = 1,
                .window_right = 0,
                .lengths_q = {0, 5, 130, 1, 0, 64, 70},
                .lengths_k = {10, 0, 140, 70, 0, 64, 20}},
               .dlse = true});
  s.push_back({{.name = "used lengths",
                .batch = 3,
                .seqlen_q = 140,
                .seqlen_k = 140,
                .window_right = 0,
                .used_q = {140, 0, 77},
                .used_k = {3, 50, 140}}});
  // 2^-lse is infinite: what is past the last query or key must be 0 in itself, also where no key is hidden.
  for (int window : {-1, 0})
    s.push_back({{.name = "large negative scores",
                  .seqlen_q = 65,
                  .seqlen_k = window < 0 ? 128 : 65,
                  .heads_q = 2,
                  .window_right = window},
                 .steep = 20});
  s.push_back({{.name = "no queries", .seqlen_q = 0, .seqlen_k = 70}});
  s.push_back({{.name = "no keys", .seqlen_q = 70, .seqlen_k = 0}});
  for (int d : {8, 40, 72, 96, 128, 160, 192, 256})
    s.push_back({{.name = "head dim " + std::to_string(d),
                  .seqlen_q = 70,
                  .seqlen_k = 90,
                  .heads_q = 2,
                  .dqk = d,
                  .dv = d,
                  .window_right = d % 64 ? -1 : 0}});
  s.push_back({{.name = "head dims 192 and 128", .seqlen_q = 70, .seqlen_k = 90, .dqk = 192, .dv = 128}});
  s.push_back({{.name = "head dims 40 and 72", .seqlen_q = 70, .seqlen_k = 90, .dqk = 40, .dv = 72}});
  for (int d : {33, 64, 100, 250})
    s.push_back({{.name = "unaligned, head dim " + std::to_string(d),
                  .seqlen_q = 70,
                  .seqlen_k = 90,
                  .dqk = d,
                  .dv = d,
                  .window_right = 0,
                  .unaligned = true}});
  return s;
}

/// Other schedules than the tables': every number of stages, parts and fragments.
std::vector<BackwardShape> schedules() {
  std::vector<BackwardShape> s;
  constexpr const char *kSchedules[][2] = {
      {"parts=1 stages=1 tile_m=16 tile_n=16 warps=1", "stages=1 tile_m=16 tile_n=16 warps=1"},
      {"parts=1 stages=2 tile_m=32 tile_n=64 warps=2", "stages=2 tile_m=64 tile_n=32 warps=2"},
      {"parts=2 stages=1 tile_m=64 tile_n=64 warps=4", "stages=1 tile_m=64 tile_n=128 warps=4"},
      {"parts=2 stages=2 tile_m=32 tile_n=48 warps=6", "stages=2 tile_m=96 tile_n=48 warps=6"},
      {"parts=2 stages=2 tile_m=96 tile_n=32 warps=4", "stages=1 tile_m=128 tile_n=64 warps=8"},
  };
  for (const auto &[kv, q] : kSchedules)
    for (int window : {-1, 40})
      s.push_back({{.name = kv,
                    .seqlen_q = 140,
                    .seqlen_k = 150,
                    .heads_q = 2,
                    .window_left = window,
                    .window_right = window < 0 ? -1 : 0},
                   std::string("sm80.backward_kv ") + kv,
                   std::string("sm80.backward_q ") + q});
  return s;
}

constexpr const char *kSoftcap = "p0 * tanh(s / p0)", *kAlibi = "s - t[h] * abs(q + sk - sq - k)";

/// Scores with and without slopes, with every kind of operand.
std::vector<BackwardShape> scores() {
  std::vector<BackwardShape> s;
  for (const char *score :
       {kSoftcap, kAlibi, "s + t[h, q, k]", "where(s > 0, s, 0.25 * s)",
        "where(k < q, s, exp(s) - log(1 + abs(s)))", "s * t[h, k] + u[q]", "s * s * p0",
        "min(max(s, -1), sqrt(1 + abs(s)) + h * b - hk)", "p0 * tanh((s + t[b, h, q, k]) / p1)"})
    for (int window : {-1, 0})
      s.push_back({{.name = std::string(score) + (window ? "" : ", causal"),
                    .batch = 2,
                    .seqlen_q = 70,
                    .seqlen_k = 100,
                    .heads_q = 4,
                    .heads_k = 2,
                    .window_right = window,
                    .score = score}});
  // A score of -infinity where t is 0, with a slope that is NaN; NaN and infinity at the keys past the
  // diagonal, which are hidden.
  for (const char *score : {"s + log(t[k])", "log(t[k] * exp(s))", "log(exp(s) * (q + sk - sq - k + 1))"})
    s.push_back({{.name = score, .seqlen_q = 70, .seqlen_k = 100, .window_right = 0, .score = score}});
  s.push_back({{.name = "softcap, window, fp16",
                .dtype = DType::F16,
                .seqlen_q = 100,
                .seqlen_k = 300,
                .window_left = 30,
                .window_right = 9,
                .score = kSoftcap},
               .dlse = true});
  s.push_back({{.name = "softcap, ragged",
                .heads_q = 2,
                .window_right = 0,
                .lengths_q = {0, 5, 130, 1, 70},
                .lengths_k = {10, 0, 140, 70, 20},
                .score = kSoftcap}});
  s.push_back(
      {{.name = "softcap, large scores", .seqlen_q = 65, .seqlen_k = 128, .score = kSoftcap}, .steep = 20});
  for (int d : {96, 128, 192, 256})
    for (const char *score : {kSoftcap, kAlibi, "s + t[h, q, k]"})
      s.push_back({{.name = std::string(score) + ", head dim " + std::to_string(d),
                    .seqlen_q = 70,
                    .seqlen_k = 90,
                    .dqk = d,
                    .dv = d,
                    .window_right = 0,
                    .score = score}});
  s.push_back({{.name = "softcap, unaligned",
                .seqlen_q = 70,
                .seqlen_k = 90,
                .dqk = 100,
                .dv = 100,
                .score = kSoftcap}});
  return s;
}

void runAll(std::vector<BackwardShape> shapes, Isa isa) {
  for (BackwardShape &shape : shapes) {
    shape.shape.isa = isa;
    INFO(shape.shape.name);
    const Compiled compiled = compileBackward(shape);
    REQUIRE(compiled.error == "");
    for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Eager}) {
      Options options;
      options.async = mode;
      const BackwardOutcome outcome = runBackward(shape, compiled, options);
      CHECK_MESSAGE(outcome.good(), outcome.text());
    }
  }
}

} // namespace

TEST_CASE("the sm_80 backward, whole") { runAll(shapes(), Isa::Sm80); }

TEST_CASE("the sm_80 backward with other schedules") { runAll(schedules(), Isa::Sm80); }

TEST_CASE("the sm_80 backward with scores") { runAll(scores(), Isa::Sm80); }

namespace {

/// What only wgmma and TMA have: every number of warpgroups, stages and columns, and turns. The small tiles
/// see many steps, the large ones tails.
std::vector<BackwardShape> hopperSchedules() {
  struct Forms {
    const char *kv, *q;
    int dqk, dv;
  };
  constexpr Forms kForms[] = {
      {"kv_stages=1 pingpong=0 stages=1 tile_m=16 tile_n=64",
       "pingpong=0 q_stages=1 stages=1 tile_m=64 tile_n=16", 64, 64},
      {"kv_stages=2 pingpong=1 stages=2 tile_m=32 tile_n=128",
       "pingpong=1 q_stages=2 stages=3 tile_m=128 tile_n=32", 64, 64},
      {"kv_stages=1 pingpong=1 stages=3 tile_m=32 tile_n=192",
       "pingpong=1 q_stages=1 stages=2 tile_m=192 tile_n=64", 64, 64},
      {"kv_stages=1 pingpong=0 stages=2 tile_m=48 tile_n=128",
       "pingpong=0 q_stages=1 stages=2 tile_m=128 tile_n=80", 72, 104},
      {"kv_stages=1 pingpong=1 roles=2 stages=2 tile_m=32 tile_n=64",
       "pingpong=1 q_stages=1 stages=2 tile_m=128 tile_n=48", 64, 64},
  };
  std::vector<BackwardShape> s;
  for (const Forms &f : kForms)
    for (int window : {-1, 40})
      s.push_back({{.name = f.kv,
                    .batch = 2,
                    .seqlen_q = 240,
                    .seqlen_k = 250,
                    .heads_q = 4,
                    .heads_k = 2,
                    .dqk = f.dqk,
                    .dv = f.dv,
                    .window_left = window,
                    .window_right = window < 0 ? -1 : 0},
                   std::string("sm90.backward_kv ") + f.kv,
                   std::string("sm90.backward_q ") + f.q});
  return s;
}

} // namespace

TEST_CASE("the sm_90a backward") { runAll(shapes(), Isa::Sm90a); }

TEST_CASE("the sm_90a backward with other schedules") { runAll(hopperSchedules(), Isa::Sm90a); }

namespace {

/// Shapes as for the pair, with dq added up by one kernel, whose every form has its turn; head dims that it
/// has not are left out.
std::vector<BackwardShape> addingShapes() {
  constexpr const char *kForms[] = {"skew=1 ds_stages=2 pingpong=1 kv_stages=2",
                                    "skew=1 ds_stages=3 pingpong=1",
                                    "skew=1 ds_stages=2 pingpong=0",
                                    "skew=0 ds_stages=1 pingpong=0",
                                    "skew=1 ds_stages=2 dq_first=0",
                                    "skew=0 ds_stages=2 pingpong=1"};
  std::vector<BackwardShape> s;
  size_t next = 0;
  auto add = [&](BackwardShape shape) {
    const bool wide = shape.shape.dqk == 128;
    shape.whole = std::string("sm90.backward tile_m=") + (wide ? "64 " : "128 ") + kForms[next++ % 6];
    shape.shape.name += ", " + shape.whole;
    s.push_back(shape);
  };
  for (const BackwardShape &shape : shapes()) {
    const int d = shape.shape.dqk;
    if (!shape.shape.unaligned && d == shape.shape.dv && (d == 64 || d == 128))
      add(shape);
  }
  constexpr std::pair<int, int> kDims[] = {{32, 32},   {64, 64},   {64, 40},  {16, 64},
                                           {64, 64},   {48, 48},   {128, 64}, {128, 128},
                                           {128, 128}, {128, 128}, {128, 64}, {128, 128}};
  for (int i = 0; i < 12; ++i) {
    const auto [d, dv] = kDims[i];
    const bool window = i % 2;
    add({{.name = "head dim " + std::to_string(d),
          .batch = 2,
          .seqlen_q = 300,
          .seqlen_k = 330,
          .heads_q = 4,
          .heads_k = 2,
          .dqk = d,
          .dv = dv,
          .window_left = window ? 40 : -1,
          .window_right = window ? 0 : -1}});
  }
  return s;
}

} // namespace

TEST_CASE("the sm_90a backward with dq added up") { runAll(addingShapes(), Isa::Sm90a); }

TEST_CASE("the sm_90a backward with scores") {
  std::vector<BackwardShape> all = scores(), some;
  for (size_t i = 0; i < all.size(); i += 3)
    some.push_back(all[i]);
  runAll(some, Isa::Sm90a);
}

TEST_CASE("gradients are the same bits whatever threads, modes and seeds") {
  for (Isa isa : {Isa::Sm80, Isa::Sm90a}) {
    BackwardShape shape{{.batch = 2,
                         .seqlen_q = 150,
                         .seqlen_k = 150,
                         .heads_q = 6,
                         .heads_k = 2,
                         .window_right = 0,
                         .isa = isa}};
    const Compiled compiled = compileBackward(shape);
    const BackwardOutcome first = runBackward(shape, compiled, {});
    REQUIRE_MESSAGE(first.good(), first.text());
    for (uint64_t seed : {1, 2}) {
      Options options;
      options.threads = 2;
      options.async = AsyncMode::Random;
      options.seed = seed;
      const BackwardOutcome outcome = runBackward(shape, compiled, options);
      REQUIRE(outcome.good());
      CHECK(outcome.bits == first.bits);
    }
  }
}

namespace {

void plantBugs(Isa isa) {
  const BackwardShape shape{{.batch = 1,
                             .seqlen_q = 130,
                             .seqlen_k = 200,
                             .heads_q = 6,
                             .heads_k = 2,
                             .window_right = 0,
                             .isa = isa},
                            .dlse = true};
  const Compiled compiled = compileBackward(shape);
  REQUIRE(runBackward(shape, compiled, {}).good());
  REQUIRE(compiled.plan.steps.size() == 3);
  auto next = [](void *p, int64_t bytes) { return static_cast<void *>(static_cast<uint8_t *>(p) + bytes); };
  const std::pair<const char *, std::function<void(int, BackwardParams &)>> bugs[] = {
      {"delta without dlse", [](int step, BackwardParams &p) { p.dlse = step == 0 ? nullptr : p.dlse; }},
      {"delta of another head in kv",
       [&](int step, BackwardParams &p) { p.row_delta = next(p.row_delta, step == 1 ? 130 * 4 : 0); }},
      {"delta of another head in q",
       [&](int step, BackwardParams &p) { p.row_delta = next(p.row_delta, step == 2 ? 130 * 4 : 0); }},
      {"scale missing in kv",
       [](int step, BackwardParams &p) { p.softmax_scale = step == 1 ? 1 : p.softmax_scale; }},
      {"scale missing in q",
       [](int step, BackwardParams &p) { p.softmax_scale = step == 2 ? 1 : p.softmax_scale; }},
      {"the diagonal is hidden in kv", [](int step, BackwardParams &p) { p.window_right -= step == 1; }},
      {"the diagonal is hidden in q", [](int step, BackwardParams &p) { p.window_right -= step == 2; }},
      {"one key too many in kv", [](int step, BackwardParams &p) { p.window_right += step == 1; }},
      {"one key too many in q", [](int step, BackwardParams &p) { p.window_right += step == 2; }},
      {"the q of a group's first head for all",
       [](int step, BackwardParams &p) { p.q_stride_h = step == 1 ? 0 : p.q_stride_h; }},
      {"dout of the next head in q",
       [&](int step, BackwardParams &p) {
         p.dout = step == 2 ? next(p.dout, -p.dout_stride_h * 2) : p.dout;
       }},
  };
  for (const auto &[name, bug] : bugs) {
    INFO(name);
    CHECK(!runBackward(shape, compiled, {}, bug).good());
  }
}

} // namespace

// That the judge is sharp enough, by params that make a kernel do what a bug would.
TEST_CASE("planted bugs are seen") {
  for (Isa isa : {Isa::Sm80, Isa::Sm90a})
    plantBugs(isa);
}

TEST_CASE("planted bugs in scores are seen") {
  const BackwardShape softcap{{.seqlen_q = 70, .seqlen_k = 90, .heads_q = 2, .score = kSoftcap}};
  const BackwardShape rows{{.seqlen_q = 70, .seqlen_k = 90, .heads_q = 2, .score = "s * t[h, q]"}};
  const Compiled capped = compileBackward(softcap), by_row = compileBackward(rows);
  REQUIRE(runBackward(softcap, capped, {}).good());
  REQUIRE(runBackward(rows, by_row, {}).good());
  for (int kernel : {1, 2}) {
    INFO("step ", kernel);
    // A cap that makes the slope of large scores 0.5 % smaller.
    CHECK(!runBackward(softcap, capped, {}, [&](int step, BackwardParams &p) {
             p.scalar[0] *= step == kernel ? 0.995f : 1;
           }).good());
    CHECK(!runBackward(rows, by_row, {}, [&](int step, BackwardParams &p) {
             p.aux[0] = static_cast<float *>(p.aux[0]) + (step == kernel ? 1 : 0); // the next row's
           }).good());
    CHECK(!runBackward(rows, by_row, {}, [&](int step, BackwardParams &p) {
             p.aux_stride[0] = step == kernel ? 0 : p.aux_stride[0]; // the first head's
           }).good());
  }
}

TEST_CASE("a backward counts the pairs of tiles once") {
  const BackwardShape shape{{.seqlen_q = 128, .seqlen_k = 256, .heads_q = 2},
                            "sm80.backward_kv parts=1 stages=1 tile_m=32 tile_n=64 warps=4"};
  const BackwardOutcome outcome = runBackward(shape, compileBackward(shape), {});
  REQUIRE_MESSAGE(outcome.good(), outcome.text());
  CHECK(outcome.tiles == 2 * (128 / 32) * (256 / 64));
}
