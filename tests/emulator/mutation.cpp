// SPDX-License-Identifier: BSD-3-Clause
// Every barrier, wait and commit of the emitted kernels is taken out, one at a time. The emulator must report
// the loss, or the instruction is redundant; which ones are is listed here, so that a new one shows. A run
// takes every third mutant, in rotation (tests/soak.h), and a soak all.
#include "tests/emulator/backward.h"
#include "tests/emulator/mutants.h"
#include "tests/soak.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <set>

using namespace flashplus;
using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

/// A kernel, and the problems that it is run on until one shows the loss: a wait that one problem does not
/// need (no second tile, no rows behind the end) another does.
struct Mutated {
  Shape shape;
  std::vector<Shape> more = {}; ///< Of the same kernel.
};

std::vector<Mutated> kernels() {
  std::vector<Mutated> all = {
      {{.name = "d64", .seqlen_q = 150, .seqlen_k = 200, .window_right = 0}},
      {{.name = "d128", .seqlen_q = 150, .seqlen_k = 200, .dqk = 128, .dv = 128}},
      {{.name = "d80 window",
        .seqlen_q = 150,
        .seqlen_k = 200,
        .dqk = 80,
        .dv = 80,
        .window_left = 90,
        .window_right = 3}},
      {{.name = "d40 tails", .seqlen_q = 77, .seqlen_k = 130, .dqk = 40, .dv = 40}},
      {{.name = "d33 element by element", .seqlen_q = 77, .seqlen_k = 130, .dqk = 33, .dv = 33}},
      {{.name = "sm_90a causal d128",
        .seqlen_q = 400,
        .seqlen_k = 450,
        .heads_q = 4,
        .heads_k = 2,
        .dqk = 128,
        .dv = 128,
        .window_right = 0,
        .isa = Isa::Sm90a}},
      {{.name = "sm_90a d64",
        .batch = 4,
        .seqlen_q = 200,
        .seqlen_k = 300,
        .heads_q = 2,
        .used_q = {140, 20, 200, 199},
        .used_k = {30, 250, 290, 100},
        .isa = Isa::Sm90a}},
      {{.name = "sm_90a pages",
        .batch = 3,
        .seqlen_q = 200,
        .seqlen_k = 320,
        .heads_q = 2,
        .used_k = {30, 250, 320},
        .page_size = 32,
        .isa = Isa::Sm90a}},
      {{.name = "split", .seqlen_q = 20, .seqlen_k = 300, .num_splits = 2}},
      // Several items a block, items of several blocks, and warps with more steps than stages.
      {{.name = "decode",
        .batch = 3,
        .seqlen_q = 1,
        .seqlen_k = 900,
        .heads_q = 8,
        .heads_k = 2,
        .dqk = 128,
        .dv = 128,
        .num_splits = 0,
        .used_k = {900, 100, 650},
        .schedule = "sm80.decode least=4 stages=2 tile_m=8 tile_n=16 warps=2",
        .multiprocessors = 5}},
  };
  Shape &decode = all.back().shape, short_ones = decode, few = decode, shares = decode, groups;
  short_ones.batch = 12, short_ones.multiprocessors = 2;
  short_ones.used_k = {20, 300, 5, 64, 0, 700, 33, 1, 130, 17, 900, 48};
  few.used_k = {900, 900, 900}, few.multiprocessors = 1;
  // One of so many shares and so few rows that groups of threads merge them.
  shares.batch = 1, shares.heads_q = 2, shares.used_k = {900}, shares.multiprocessors = 40;
  groups = shares; // and one of more than a block merges
  groups.seqlen_k = 2400, groups.used_k = {2400}, groups.multiprocessors = 80;
  all.back().more = {short_ones, few, shares, groups};
  for (Mutated &k : all) {
    if (k.shape.isa != Isa::Sm90a)
      continue;
    // Lengths that end inside tiles with other rows behind them; many items, short and long by turns.
    Shape used = k.shape, many = k.shape;
    used.batch = 3;
    used.seqlen_q = 300, used.seqlen_k = 704;
    used.used_q = {300, 290, 130};
    used.used_k = {700, 333, 10};
    if (k.shape.page_size) { // which packed keys have not
      k.more = {used};
      continue;
    }
    many.heads_q = 2 * k.shape.heads_k;
    many.seqlen_q = many.seqlen_k = 0;
    many.used_q.clear(), many.used_k.clear();
    for (int i = 0; i < 12; ++i) {
      many.lengths_q.push_back(i % 3 == 0 ? 260 : 20 + i);
      many.lengths_k.push_back(i % 4 == 1 ? 600 : 30 * i);
    }
    k.more = {used, many};
  }
  Mutated boxes = all.back(); // decode, its ring filled by TMA
  boxes.shape.name = "decode sm_90a";
  // Sequences of one length, which nobody reads from memory, and blocks that have none of them.
  boxes.more.push_back(boxes.shape);
  boxes.more.back().used_k.clear(), boxes.more.back().multiprocessors = 80;
  auto onHopper = [](Shape &s) {
    s.isa = Isa::Sm90a;
    s.schedule = "sm90.decode least=4 stages=2 tile_m=8 tile_n=16 warps=2";
  };
  onHopper(boxes.shape);
  std::ranges::for_each(boxes.more, onHopper);
  all.push_back(boxes);
  return all;
}

/// What may be taken out of the forward kernel without a difference here, and why.
const std::set<std::string> kRedundant = {
    // The fence of PV: nothing touches registers between QK's and this one. ptxas wants one before each
    // product.
    "sm_90a causal d128: wgmma.fence 2", "sm_90a d64: wgmma.fence 2", "sm_90a pages: wgmma.fence 2",
    // With as many stages of K as of Q, the wait for K's slot in front of the one for Q's orders the same;
    // the d64
    // schedule, with more, needs it.
    "sm_90a causal d128: mbarrier.try_wait 9",
    // More registers for the math warps: what ptxas needs for the code is not known to the emulator.
    "sm_90a causal d128: setmaxnreg 1", "sm_90a d64: setmaxnreg 1", "sm_90a pages: setmaxnreg 1",
    // Orders a block's stores before its count of them, for other blocks: the order in which they see stores
    // is not modelled.
    "decode: bar.sync 4",
    // A place that was filled with nothing: its phase is over as soon as the lane that fills it anew has
    // arrived. The waits are for the rule that each phase is waited for, which synccheck holds.
    "decode sm_90a: mbarrier.try_wait 2", "decode sm_90a: mbarrier.try_wait 3"};

} // namespace

TEST_CASE("no synchronisation of the kernels can be left out unseen") {
  constexpr uint64_t kParts = 3;
  const bool whole = flashplus::test::soak();
  const uint64_t part = flashplus::test::turn() % kParts;
  std::set<std::string> unseen, all;
  size_t count = 0;
  for (const Mutated &kernel : kernels()) {
    const Shape &shape = kernel.shape;
    const Compiled original = compile(shape);
    REQUIRE(original.error == "");
    std::vector<std::pair<Shape, Compiled>> problems = {{shape, original}};
    for (Shape more : kernel.more) {
      more.schedule = original.plan.steps[0].schedule.text();
      Compiled compiled = compile(more);
      REQUIRE(compiled.error == "");
      REQUIRE(compiled.ptx[0] == original.ptx[0]);
      const Outcome outcome = runAttention(more, compiled, {});
      REQUIRE_MESSAGE(outcome.good(), outcome.text());
      problems.emplace_back(std::move(more), std::move(compiled));
    }
    for (const Mutant &m : mutants(original.ptx[0])) {
      const std::string name = shape.name + ": " + m.name;
      all.insert(name);
      if (!whole && all.size() % kParts != part)
        continue;
      ++count;
      bool seen = false;
      std::string how;
      for (const auto &[problem, compiled] : problems)
        for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Random}) {
          if (seen)
            break;
          Compiled mutant = compiled;
          mutant.ptx[0] = m.ptx;
          Options options;
          options.async = mode;
          const Outcome outcome = runAttention(problem, mutant, options);
          seen = !outcome.good();
          how = outcome.text();
        }
      if (!seen)
        unseen.insert(name);
      INFO(name << ": " << how);
      CHECK(seen == !kRedundant.contains(name));
    }
  }
  CHECK(all.size() > 90);
  CHECK(count >= (whole ? all.size() : all.size() / kParts));
  for (const std::string &name : kRedundant)
    CHECK_MESSAGE(all.contains(name), "no kernel has what is listed as redundant: " << name);
  std::string list;
  for (const std::string &name : unseen)
    list += "\n  " + name;
  MESSAGE(count << " of " << all.size() << " mutants"
                << (whole ? ""
                          : ", part " + std::to_string(part) + " of " + std::to_string(kParts) +
                                " (FLASHPLUS_TEST_TURN; all: FLASHPLUS_SOAK=1)")
                << ", unseen:" << list);
}

namespace {

/// A backward, of which one step's kernel is mutated.
struct MutatedBackward {
  BackwardShape shape;
  int step;                ///< 1: dk and dv, or all three; 2: dq.
  std::vector<Shape> more; ///< Of the same kernel, as Mutated's.
};

/// Forms of sm_90a's kernels, with lengths that end inside tiles with other rows behind them, and with many
/// items, long and short by turns, of which some have nothing to do.
std::vector<MutatedBackward> hopperBackwardKernels() {
  Shape causal{
      .seqlen_q = 300, .seqlen_k = 330, .heads_q = 4, .heads_k = 2, .window_right = 0, .isa = Isa::Sm90a};
  Shape used = causal, many = causal;
  used.batch = 3;
  used.used_q = {300, 290, 130};
  used.used_k = {330, 201, 10};
  many.seqlen_q = many.seqlen_k = 0;
  for (int i = 0; i < 6; ++i) {
    many.lengths_q.push_back(i % 3 == 0 ? 260 : 20 + i);
    many.lengths_k.push_back(i % 4 == 1 ? 300 : 30 * i);
  }
  auto named = [&](const char *name) {
    Shape s = causal;
    s.name = name;
    return s;
  };
  const std::string kv = "sm90.backward_kv kv_stages=1 pingpong=1 stages=2 tile_m=32 tile_n=128",
                    q = "sm90.backward_q pingpong=1 q_stages=1 stages=2 tile_m=128 tile_n=32";
  // As the table has them.
  BackwardShape adding{named("sm_90a adding")}, wide{named("sm_90a adding d128")};
  adding.whole = "sm90.backward ds_stages=2 kv_stages=2 pingpong=1 stages=2 tile_m=128";
  wide.whole = "sm90.backward ds_stages=3 kv_stages=1 pingpong=1 stages=2 tile_m=64";
  wide.shape.dqk = wide.shape.dv = 128;
  Shape wide_used = used, wide_many = many;
  for (Shape *shape : {&wide_used, &wide_many})
    shape->dqk = shape->dv = 128;
  return {{adding, 1, {used, many}},
          {wide, 1, {wide_used, wide_many}},
          {{named("sm_90a q"), {}, q}, 2, {used, many}},
          {{named("sm_90a kv, turns"), kv}, 1, {used, many}},
          {{named("sm_90a kv")}, 1, {used, many}}};
}

/// What may be taken out of them without a difference here, and why.
const std::set<std::string> kRedundantInBackward = {
    // The fences of the second of two products: nothing touches registers between the first one's and them.
    "sm_90a kv: wgmma.fence 1", "sm_90a kv: wgmma.fence 3", "sm_90a kv, turns: wgmma.fence 1",
    "sm_90a kv, turns: wgmma.fence 3", "sm_90a q: wgmma.fence 2",
    // Those of the loop of sm90.backward: nothing touches registers between dV and dK of a step and S, dP of
    // the next one, nor before dQ, whose fence and dV's stand in for each other.
    "sm_90a adding: wgmma.fence 1", "sm_90a adding: wgmma.fence 4", "sm_90a adding: wgmma.fence 5",
    "sm_90a adding: wgmma.fence 6", "sm_90a adding: wgmma.fence 7", "sm_90a adding: wgmma.fence 8",
    "sm_90a adding: wgmma.fence 9", "sm_90a adding d128: wgmma.fence 1", "sm_90a adding d128: wgmma.fence 4",
    "sm_90a adding d128: wgmma.fence 5", "sm_90a adding d128: wgmma.fence 6",
    "sm_90a adding d128: wgmma.fence 7", "sm_90a adding d128: wgmma.fence 8",
    "sm_90a adding d128: wgmma.fence 9",
    // An item's first tile of dS: with one stage of keys all warps have left the item before when they come.
    "sm_90a adding d128: mbarrier.try_wait 8",
    // A later one, of three stages: a warpgroup's turn comes when the other one has had that of the step
    // before, and so has added up dQ of the tile that was there.
    "sm_90a adding d128: mbarrier.try_wait 10",
    // dV's own group: dK's has both, and both are waited for together.
    "sm_90a kv: wgmma.commit_group 0", "sm_90a kv, turns: wgmma.commit_group 0",
    "sm_90a adding: wgmma.commit_group 2", "sm_90a adding d128: wgmma.commit_group 2",
    // With two stages of queries as of keys, the wait for the first tile of queries in front of the one for
    // the keys' stage orders the same.
    "sm_90a kv: mbarrier.try_wait 2", "sm_90a adding: mbarrier.try_wait 2",
    // More registers for the math warps: what ptxas needs for the code is not known to the emulator.
    "sm_90a kv: setmaxnreg 1", "sm_90a kv, turns: setmaxnreg 1", "sm_90a q: setmaxnreg 1",
    "sm_90a adding: setmaxnreg 1", "sm_90a adding d128: setmaxnreg 1"};

std::vector<MutatedBackward> backwardKernels() {
  const Shape causal{.seqlen_q = 150, .seqlen_k = 200, .heads_q = 2, .window_right = 0};
  Shape wide = causal, unaligned = causal;
  wide.dqk = wide.dv = 32;
  unaligned.dqk = unaligned.dv = 33;
  auto named = [](Shape s, const char *name) {
    s.name = name;
    return s;
  };
  const char *q = "sm80.backward_q stages=1 tile_m=64 tile_n=32 warps=4";
  std::vector<MutatedBackward> all = {
      {{named(causal, "kv, two stages")}, 1},
      {{named(causal, "kv, one stage"), "sm80.backward_kv parts=1 stages=1 tile_m=32 tile_n=64 warps=4"}, 1},
      {{named(wide, "kv, two parts"), "sm80.backward_kv parts=2 stages=1 tile_m=32 tile_n=32 warps=4"}, 1},
      {{named(wide, "kv, two parts, two stages"),
        "sm80.backward_kv parts=2 stages=2 tile_m=32 tile_n=32 warps=4"},
       1},
      {{named(unaligned, "kv, element by element")}, 1},
      {{named(causal, "q, two stages")}, 2},
      {{named(causal, "q, one stage"), {}, q}, 2},
      {{named(unaligned, "q, element by element"), {}, q}, 2}};
  for (MutatedBackward &kernel : hopperBackwardKernels())
    all.push_back(std::move(kernel));
  return all;
}

} // namespace

TEST_CASE("no synchronisation of the backward's kernels can be left out unseen") {
  constexpr uint64_t kParts = 3;
  const bool whole = flashplus::test::soak();
  const uint64_t part = flashplus::test::turn() % kParts;
  std::set<std::string> all;
  for (const MutatedBackward &kernel : backwardKernels()) {
    const Compiled original = compileBackward(kernel.shape);
    REQUIRE(original.error == "");
    REQUIRE(original.ptx.size() == 3);
    std::vector<std::pair<BackwardShape, Compiled>> problems = {{kernel.shape, original}};
    for (const Shape &more : kernel.more) {
      BackwardShape shape = kernel.shape;
      shape.shape = more;
      problems.emplace_back(shape, compileBackward(shape));
      REQUIRE(problems.back().second.error == "");
      REQUIRE(problems.back().second.ptx[size_t(kernel.step)] == original.ptx[size_t(kernel.step)]);
    }
    for (const auto &[shape, compiled] : problems) {
      const BackwardOutcome good = runBackward(shape, compiled, {});
      REQUIRE_MESSAGE(good.good(), good.text());
    }
    for (const Mutant &m : mutants(original.ptx[size_t(kernel.step)])) {
      const std::string name = kernel.shape.shape.name + ": " + m.name;
      all.insert(name);
      if (!whole && all.size() % kParts != part)
        continue;
      bool seen = false;
      for (const auto &[shape, compiled] : problems)
        for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Random}) {
          if (seen)
            break;
          Compiled mutant = compiled;
          mutant.ptx[size_t(kernel.step)] = m.ptx;
          Options options;
          options.async = mode;
          seen = !runBackward(shape, mutant, options).good();
        }
      INFO(name);
      CHECK(seen == !kRedundantInBackward.contains(name));
    }
  }
  for (const std::string &name : kRedundantInBackward)
    CHECK_MESSAGE(all.contains(name), "no kernel has what is listed as redundant: " << name);
  CHECK(all.size() > 40);
}
