// SPDX-License-Identifier: BSD-3-Clause
// Dropout: forward and backward draw the mask of spec/dropout.h, bit for bit, whatever the tiles; against
// fp64.
#include "tests/conformance/backward_check.h"

#include "spec/dropout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

using namespace flashplus;
using namespace flashplus::conformance;

namespace {

constexpr uint64_t kSeed = 0x123456789abcdef0, kOffset = 0xfedcba9800000004;

std::vector<Case> variety() {
  Case base = {
      .batch = 2, .hq = 4, .hk = 2, .d = 32, .dropout = 0.3f, .rng_seed = kSeed, .rng_offset = kOffset};
  std::vector<Case> cases;
  for (auto [sq, sk] : {std::pair<int64_t, int64_t>{1, 200}, {3, 20}, {97, 130}, {130, 50}, {200, 211}})
    for (auto [left, right] : {std::pair<int, int>{-1, -1}, {-1, 0}, {9, 3}, {70, -1}}) {
      Case c = base;
      c.sq = sq;
      c.sk = sk;
      c.window_left = left;
      c.window_right = right;
      c.rng_pointer = (sq + left) % 2 == 0;
      cases.push_back(c);
    }
  base.ragged_q = {3, 0, 97, 20};
  base.ragged_k = {64, 5, 130, 0};
  cases.push_back(base);
  base.causal = true;
  base.rng_pointer = true;
  base.used_k = {64, 5, 100, 0};
  cases.push_back(base);
  return cases;
}

/// Runs `c` with a V that shows single keys, dv at a time, and checks that o is 0 where the mask drops a key,
/// and nowhere else.
void checkMask(Case c) {
  const auto dropout = Dropout::make(double(c.dropout));
  REQUIRE(dropout);
  int64_t longest = 0;
  for (int64_t b = 0; b < c.batches(); ++b)
    longest = std::max(longest, c.lengthK(b));
  int64_t wrong = 0, kept = 0, seen = 0;
  for (int64_t first = 0; first < longest; first += c.dimV()) {
    c.fill = [first](char tensor, int64_t, int64_t row, int64_t, int64_t column) {
      return tensor == 'v' ? float(row == first + column) : 0.0f;
    };
    const reference::Actual actual = run(c);
    for (int64_t b = 0; b < c.batches(); ++b)
      for (int64_t i = 0; i < c.lengthQ(b); ++i)
        for (int64_t h = 0; h < c.hq; ++h)
          for (int64_t j = first; j < std::min(first + c.dimV(), c.lengthK(b)); ++j) {
            if (!c.sees(b, i, j))
              continue;
            const size_t row = size_t((c.ragged() ? c.startQ(b) : b * c.sq) + i);
            const double got =
                actual.o[(row * size_t(c.hq) + size_t(h)) * size_t(c.dimV()) + size_t(j - first)];
            const bool keeps = dropoutKeeps(*dropout, c.rng_seed, c.rng_offset, uint32_t(b * c.hq + h), i, j);
            wrong += (got != 0) != keeps;
            kept += keeps;
            ++seen;
          }
  }
  CHECK_MESSAGE(wrong == 0, wrong << " of " << seen << " positions: " << c.text());
  if (seen > 10000) {
    const double share = double(kept) / double(seen), p = dropout->keepProbability();
    CHECK_MESSAGE(std::fabs(share - p) < 6 * std::sqrt(p * (1 - p) / double(seen)),
                  share << ": " << c.text());
  }
}

} // namespace

TEST_SUITE_BEGIN("dropout");

TEST_CASE("dropout: a forward draws the mask of the reference, bit for bit") {
  for (const Case &c : chosen(forEveryDtype(variety())))
    checkMask(c);
}

TEST_CASE("dropout: whatever the tiles and the shares of the keys") {
  const bool cpu = Session::get().onCpu(), hopper = Session::get().options().device == "emulator:1";
  const std::vector<std::string> schedules =
      cpu ? std::vector<std::string>{"cpu.flash mr=6 nr=2 pairs=0 tile_m=12 tile_n=32",
                                     "cpu.flash mr=4 nr=1 pairs=0 tile_m=48 tile_n=96",
                                     "cpu.stream heads=4 tile_m=1 tile_n=16",
                                     "cpu.stream heads=2 tile_m=8 tile_n=32"}
          : std::vector<std::string>{"sm80.flash stages=1 tile_m=64 tile_n=48 warps=4",
                                     "sm80.flash stages=2 tile_m=128 tile_n=32 warps=4",
                                     "sm80.flash stages=1 tile_m=128 tile_n=80 warps=8",
                                     "sm90.flash pingpong=0 q_stages=1 stages=2 tile_m=64 tile_n=80",
                                     "sm90.flash pingpong=1 q_stages=2 stages=2 tile_m=128 tile_n=64"};
  for (const std::string &schedule : schedules) {
    if (schedule.starts_with("sm90") && !hopper)
      continue;
    for (bool causal : {false, true})
      checkMask({.batch = 2,
                 .sq = 133,
                 .sk = 170,
                 .hq = 4,
                 .hk = 2,
                 .d = 64,
                 .causal = causal,
                 .dropout = 0.5f,
                 .rng_seed = kSeed,
                 .rng_offset = 8,
                 .schedule = schedule});
  }
  for (int splits : {2, 5})
    checkMask({.batch = 1,
               .sq = 9,
               .sk = 300,
               .hq = 4,
               .hk = 1,
               .dropout = 0.5f,
               .rng_seed = 3,
               .num_splits = splits});
}

TEST_CASE("dropout: o and lse against fp64") {
  std::vector<Case> cases = variety();
  for (float p : {0.001f, 0.1f, 0.9f})
    for (int64_t d : {64, 128})
      cases.push_back(
          {.batch = 1, .sq = 100, .sk = 130, .d = d, .causal = d == 64, .dropout = p, .rng_seed = kSeed});
  cases.push_back({.sq = 100, .sk = 130, .score = "s - 0.01 * abs(q - k)", .dropout = 0.2f, .rng_seed = 5});
  cases.push_back({.sq = 10, .sk = 300, .dropout = 0.2f, .rng_seed = 5, .num_splits = 3});
  check(forEveryDtype(cases));
}

TEST_CASE("dropout: a rate that drops nothing is none, whatever the seed") {
  for (DType dtype : Session::get().dtypes()) {
    Case c = {.dtype = dtype, .sq = 70, .sk = 70};
    Instance plain(c);
    c.dropout = 1e-30f;
    c.rng_seed = 7;
    Instance none(c);
    CHECK(runForward(plain).o == runForward(none).o);
  }
}

TEST_CASE("dropout: the gradients against fp64") {
  std::vector<Case> cases = variety();
  for (int64_t d : {64, 128})
    for (float p : {0.1f, 0.5f})
      cases.push_back({.batch = 1,
                       .sq = 150,
                       .sk = 130,
                       .hq = 4,
                       .hk = 2,
                       .d = d,
                       .causal = p < 0.3f,
                       .dropout = p,
                       .rng_seed = 9});
  cases.push_back({.sq = 100, .sk = 130, .softcap = 3, .dropout = 0.2f, .rng_seed = 5});
  checkBackward(cases);
}

TEST_CASE("dropout: the C API gives the mask that kernels draw") {
  flashplus_dropout_mask_args args = {};
  args.struct_size = sizeof args;
  args.seed = kSeed;
  args.offset = kOffset;
  args.first_batch = 1;
  args.batch = 2;
  args.heads = 3;
  args.rows = 19;
  args.keys = 37;
  args.dropout_p = 0.3f;
  std::vector<uint8_t> keep(2 * 3 * 19 * 37);
  require(flashplus_dropout_mask(&args, keep.data()), "mask");
  const auto dropout = Dropout::make(double(0.3f));
  REQUIRE(dropout);
  int64_t wrong = 0, at = 0;
  for (uint32_t head = 3; head < 9; ++head)
    for (int64_t i = 0; i < 19; ++i)
      for (int64_t j = 0; j < 37; ++j)
        wrong += keep[size_t(at++)] != uint8_t(dropoutKeeps(*dropout, kSeed, kOffset, head, i, j));
  CHECK(wrong == 0);
  args.dropout_p = 0;
  require(flashplus_dropout_mask(&args, keep.data()), "mask");
  CHECK(std::count(keep.begin(), keep.end(), 1) == std::ssize(keep));
  auto refused = [&](const char *message) {
    CHECK(flashplus_dropout_mask(&args, keep.data()) == FLASHPLUS_INVALID_ARGUMENT);
    CHECK_MESSAGE(std::strstr(flashplus_last_error(), message), flashplus_last_error());
  };
  args.dropout_p = 1;
  refused("dropout probability is 1; it must be at least 0 and below 1");
  args.dropout_p = 0.3f;
  args.rows = -1;
  refused("args.rows is -1; it must be 0 to ");
}

TEST_CASE("dropout: what is wrong with its arguments") {
  Case c = {.sq = 16, .sk = 16, .dropout = 0.5f};
  Instance instance(c);
  auto refused = [&](const char *message, auto change) {
    flashplus_forward_args args = instance.args();
    change(args);
    CHECK(flashplus_forward(Session::get().context(), &args, nullptr) == FLASHPLUS_INVALID_ARGUMENT);
    CHECK_MESSAGE(std::strstr(flashplus_last_error(), message), flashplus_last_error());
  };
  for (auto [p, text] : {std::pair{-0.1f, "dropout_p is -0.1"},
                         {1.0f, "dropout_p is 1; it must be"},
                         {1.5f, "dropout_p is 1.5"},
                         {kNaN, "dropout_p is "},
                         {0.999f, "255/256"}})
    refused(text, [&](flashplus_forward_args &a) { a.dropout_p = p; });
  DLTensor lengths = *instance.args().q;
  refused("rng_state has dtype", [&](flashplus_forward_args &a) { a.rng_state = &lengths; });
  int64_t shape = 3;
  lengths.ndim = 1;
  lengths.dtype = {kDLInt, 64, 1};
  lengths.shape = &shape;
  lengths.strides = nullptr;
  refused("rng_state has shape (3); it must be (2)",
          [&](flashplus_forward_args &a) { a.rng_state = &lengths; });
}

TEST_SUITE_END();
