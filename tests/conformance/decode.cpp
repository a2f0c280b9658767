// SPDX-License-Identifier: BSD-3-Clause
// Few query rows against many keys, with nobody's say in how the keys are shared: on a GPU sm80.decode, whose
// blocks divide all keys of the batch among themselves. (On a CPU the same problems, whatever serves them.)
#include "tests/conformance/check.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

/// A problem whose shares are the plan's business.
Case decode(Case c) {
  c.num_splits = 0;
  return c;
}

std::vector<Case> decode(std::vector<Case> cases) {
  for (Case &c : cases)
    c = decode(c);
  return forEveryDtype(cases);
}

/// The same cases where each block has as many tiles as this says, and each of its two warps many steps: by
/// itself a grid of a hundred blocks leaves few to each.
constexpr const char *kLongRanges = "sm80.decode least=64 stages=2 tile_m=8 tile_n=16 warps=2";

void checkWith(const char *schedule, const std::vector<Case> &cases) {
  if (Session::get().onCpu())
    return;
  for (const Case &c : cases) {
    Instance instance(c);
    flashplus_forward_args args = instance.args();
    args.schedule = schedule;
    instance.resetOutputs();
    require(flashplus_forward(Session::get().context(), &args, nullptr), c.text());
    require(flashplus_synchronize(Session::get().context(), Session::get().device(), nullptr), c.text());
    const reference::Comparison result =
        reference::compare(instance.reference(), instance.unpack(instance.readO(), instance.readLse()));
    CHECK_MESSAGE(result.error <= result.bound, schedule << ": " << c.text());
    CHECK_MESSAGE(result.lse_error <= result.lse_bound, schedule << ": " << c.text());
  }
}

constexpr int64_t kLengths[] = {0, 1, 7, 8, 15, 16, 17, 127, 128, 129, 300};

} // namespace

TEST_SUITE_BEGIN("decode");

TEST_CASE("decode: one kernel, whatever the rows of a group, up to 32 of them") {
  if (Session::get().onCpu())
    return;
  using Three = std::tuple<int64_t, int64_t, int64_t>;
  for (auto [group, sq, kernel] :
       {Three{1, 1, 8}, {8, 1, 8}, {4, 2, 8}, {9, 1, 16}, {4, 4, 16}, {16, 2, 32}, {1, 32, 32}}) {
    const Instance instance(decode(Case{.sq = sq, .sk = 100, .hq = group, .hk = 1}));
    const PlanPtr plan = makePlan(instance);
    CHECK_MESSAGE(inspect(*plan).tile_m == kernel, instance.problem().text()); // of D 64
    CHECK(inspect(*plan).packs_heads);
    CHECK(inspect(*plan).steps == 1);
  }
}

TEST_CASE("decode: groups of any size, query rows and lengths") {
  if (Session::get().onCpu())
    return; // shapes.cpp has them
  for (int64_t group : {1, 2, 3, 4, 5, 8, 16})
    for (int64_t sq : {1, 2, 4, 8})
      if (group * sq <= 32)
        for (int64_t sk : kLengths)
          check(decode({{.batch = 2, .sq = sq, .sk = sk, .hq = 2 * group, .hk = 2, .causal = sq > 1}}));
}

TEST_CASE("decode: head dims, also of V alone, and layouts") {
  for (auto [d, dv] : {std::pair<int64_t, int64_t>{8, 8},
                       {64, 64},
                       {72, 40},
                       {96, 96},
                       {128, 128},
                       {128, 64},
                       {64, 128},
                       {192, 128},
                       {192, 192},
                       {256, 256}})
    for (int64_t sq : {1, 3})
      check(decode({{.batch = 2, .sq = sq, .sk = 200, .hq = 8, .hk = 2, .d = d, .dv = dv, .causal = true},
                    {.batch = 2,
                     .sq = sq,
                     .sk = 33,
                     .hq = 4,
                     .hk = 1,
                     .d = d,
                     .dv = dv,
                     .lse_gap = 3,
                     .q_layout = {.order = Layout::Order::Bhsd, .gap = 8},
                     .k_layout = {.order = Layout::Order::Sbhd, .gap = 16},
                     .v_layout = {.order = Layout::Order::Bhsd, .gap = 8},
                     .o_layout = {.order = Layout::Order::Sbhd, .gap = 8}}}));
}

TEST_CASE("decode: ragged batches, sequences without keys or queries among them") {
  const std::vector<Case> cases = decode({
      {.ragged_q = {1, 1, 1, 1, 1}, .ragged_k = {300, 0, 1, 129, 16}, .hq = 8, .hk = 2},
      {.ragged_q = {1, 0, 2, 4, 0},
       .ragged_k = {17, 100, 0, 129, 0},
       .tail_q = 3,
       .tail_k = 5,
       .hq = 8,
       .hk = 2,
       .causal = true},
      {.ragged_q = {0, 0, 1}, .ragged_k = {0, 0, 64}, .hq = 8, .hk = 2},
      {.ragged_q = {1, 0, 0}, .ragged_k = {0, 8, 0}, .hq = 8, .hk = 2, .lse_empty = -kInf},
      {.batch = 3,
       .sq = 4,
       .sk = 400,
       .hq = 8,
       .hk = 2,
       .used_q = {4, 0, 2},
       .used_k = {400, 10, 0},
       .causal = true},
      {.batch = 5, .sq = 1, .sk = 200, .hq = 4, .hk = 4, .used_k = {0, 1, 200, 16, 17}},
  });
  check(cases);
  checkWith(kLongRanges, cases);
}

TEST_CASE("decode: more sequences than a warp has lanes, of every length") {
  std::vector<int64_t> queries, keys;
  std::vector<int32_t> used;
  for (int b = 0; b < 70; ++b) {
    queries.push_back(b % 5 ? 1 : 0);
    keys.push_back(b * 37 % 61);
    used.push_back(b * 31 % 70);
  }
  check(decode({{.ragged_q = queries, .ragged_k = keys, .hq = 4, .hk = 1},
                {.batch = 70, .sq = 1, .sk = 70, .hq = 4, .hk = 1, .used_k = used}}));
}

TEST_CASE("decode: random ragged batches") {
  // How they are divided, of thousands, is ir.decode_ranges.
  std::mt19937 random(4711);
  auto below = [&](int n) { return int(random() % unsigned(n)); };
  const int batches = Session::get().pairsOnly() ? 24 : 96;
  for (int i = 0; i < batches; ++i) {
    Case c;
    const int sequences = 1 + below(12), heads_k = 1 + below(3), most_keys = 1 << below(10);
    c.hk = heads_k;
    c.hq = heads_k * (1 + below(4));
    c.causal = below(2);
    if (below(2)) {
      for (int b = 0; b < sequences; ++b) {
        c.ragged_q.push_back(below(3));
        c.ragged_k.push_back(below(5) ? below(most_keys) : 0);
      }
    } else {
      c.batch = sequences, c.sq = 1 + below(2), c.sk = most_keys;
      for (int b = 0; b < sequences; ++b)
        c.used_k.push_back(below(most_keys + 1));
    }
    check(decode(std::vector<Case>{c}));
  }
}

TEST_CASE("decode: windows, softcap, ALiBi and a score of its own") {
  for (int64_t sq : {1, 4}) {
    const std::vector<Case> cases = decode({
        {.batch = 2, .sq = sq, .sk = 300, .hq = 8, .hk = 2, .window_left = 100, .window_right = 0},
        {.sq = sq, .sk = 300, .hq = 8, .hk = 2, .window_left = 20, .window_right = 7},
        {.sq = sq, .sk = 300, .hq = 8, .hk = 2, .window_left = 0, .window_right = 0},
        {.sq = sq, .sk = 2, .hq = 8, .hk = 2, .causal = true, .lse_empty = -kInf},
        {.batch = 2, .sq = sq, .sk = 300, .hq = 8, .hk = 2, .causal = true, .softcap = 2},
        {.batch = 2, .sq = sq, .sk = 300, .hq = 8, .hk = 2, .causal = true, .alibi = Alibi::PerHead},
        {.batch = 2, .sq = sq, .sk = 300, .hq = 8, .hk = 2, .softcap = 2, .alibi = Alibi::PerBatch},
        {.sq = sq, .sk = 200, .hq = 8, .hk = 2, .causal = true, .scale = -0.25f},
        {.batch = 2,
         .sq = sq,
         .sk = 150,
         .hq = 8,
         .hk = 2,
         .score = "s + bias[b, h, q, k]",
         .aux = {{"bias", {2, 8, sq, 150}}}},
    });
    check(cases);
    checkWith(kLongRanges, cases);
  }
}

TEST_CASE("decode: the largest score first, last, and in every warp's keys") {
  for (int64_t peak : {0, 15, 16, 130, 255, 256, 1023}) {
    Case c = decode(Case{.sq = 1, .sk = 1024, .hq = 4, .hk = 1});
    c.fill = [=](char tensor, int64_t, int64_t row, int64_t, int64_t column) {
      if (tensor == 'v')
        return float((row + column) % 7) - 3;
      return tensor == 'q' ? 1.0f : row == peak ? 1.5f : float(row % 16) / 64;
    };
    check(forEveryDtype({c}));
    checkWith(kLongRanges, forEveryDtype({c}));
  }
}

TEST_CASE("decode: shares that end where sequences do, and many of one") {
  // 108 and 132 blocks: as many tiles, fewer, some more, and several of them each.
  for (int64_t heads : {1, 3, 4, 11, 12})
    for (int64_t sk : {16, 144, 192, 1728, 2112})
      check(decode({{.batch = 1, .sq = 1, .sk = sk, .hq = heads, .hk = heads, .d = 16}}));
  check(decode({{.batch = 1, .sq = 1, .sk = 20000, .hq = 8, .hk = 1, .d = 16},
                {.batch = 108, .sq = 1, .sk = 40, .hq = 2, .hk = 1, .d = 16},
                {.batch = 132, .sq = 1, .sk = 40, .hq = 2, .hk = 1, .d = 16}}));
}

TEST_CASE("decode: one plan and one workspace for every length") {
  if (Session::get().onCpu())
    return;
  for (DType dtype : Session::get().dtypes()) {
    auto problem = [&](std::vector<int32_t> used) {
      return decode(Case{
          .dtype = dtype, .batch = 3, .sq = 1, .sk = 700, .hq = 8, .hk = 2, .used_k = std::move(used)});
    };
    Instance planned(problem({700, 700, 700}));
    const PlanPtr plan = makePlan(planned);
    const DeviceBuffer workspace = freshWorkspace(*plan);
    for (std::vector<int32_t> used :
         {std::vector<int32_t>{700, 700, 700}, {1, 0, 0}, {0, 0, 700}, {33, 500, 16}, {0, 0, 0}}) {
      Instance instance(problem(used));
      instance.resetOutputs();
      for (int times = 0; times < 2; ++times)
        require(flashplus_plan_run(plan.get(), &instance.args(), workspace.data(), workspace.size(), nullptr),
                instance.problem().text());
      require(flashplus_synchronize(Session::get().context(), Session::get().device(), nullptr), "");
      const reference::Comparison result =
          reference::compare(instance.reference(), instance.unpack(instance.readO(), instance.readLse()));
      CHECK_MESSAGE(result.error <= result.bound, instance.problem().text());
      CHECK_MESSAGE(result.lse_error <= result.lse_bound, instance.problem().text());
    }
    const std::vector<std::byte> after = workspace.read();
    CHECK(std::all_of(after.begin(), after.begin() + FLASHPLUS_WORKSPACE_ZEROED,
                      [](std::byte b) { return b == std::byte(0); }));
  }
}

TEST_CASE("decode: the kernel is right for more rows than it is chosen for") {
  checkWith("sm80.decode stages=3 tile_m=8 tile_n=16 warps=4",
            forEveryDtype({decode(Case{.batch = 2, .sq = 9, .sk = 100, .hq = 6, .hk = 2, .causal = true}),
                           decode(Case{.ragged_q = {5, 0, 33},
                                       .ragged_k = {64, 10, 70},
                                       .hq = 4,
                                       .hk = 2,
                                       .window_left = 20,
                                       .window_right = 0})}));
}

TEST_SUITE_END();
