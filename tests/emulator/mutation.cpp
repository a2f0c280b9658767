// SPDX-License-Identifier: BSD-3-Clause
// Every barrier, wait and commit of the emitted kernels is taken out, one at a time. The emulator must report
// the loss, or the instruction is redundant; which ones are is listed here, so that a new one shows.
#include "tests/emulator/attention.h"
#include "tests/emulator/mutants.h"

#include <doctest/doctest.h>
#include <set>

using namespace flashplus;
using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

const Shape kShapes[] = {
    {.name = "d64", .seqlen_q = 150, .seqlen_k = 200, .window_right = 0},
    {.name = "d128", .seqlen_q = 150, .seqlen_k = 200, .dqk = 128, .dv = 128},
    {.name = "d80 window",
     .seqlen_q = 150,
     .seqlen_k = 200,
     .dqk = 80,
     .dv = 80,
     .window_left = 90,
     .window_right = 3},
    {.name = "d40 tails", .seqlen_q = 77, .seqlen_k = 130, .dqk = 40, .dv = 40},
    {.name = "d33 element by element", .seqlen_q = 77, .seqlen_k = 130, .dqk = 33, .dv = 33},
    {.name = "sm_90a causal d128",
     .seqlen_q = 400,
     .seqlen_k = 450,
     .heads_q = 4,
     .heads_k = 2,
     .dqk = 128,
     .dv = 128,
     .window_right = 0,
     .isa = Isa::Sm90a},
    {.name = "sm_90a used lengths d64",
     .batch = 4,
     .seqlen_q = 200,
     .seqlen_k = 300,
     .heads_q = 2,
     .used_q = {140, 20, 200, 199},
     .used_k = {30, 250, 290, 100},
     .isa = Isa::Sm90a},
    {.name = "split", .seqlen_q = 20, .seqlen_k = 300, .num_splits = 2},
};

/// What may be taken out of the forward kernel without a difference, and why.
const std::set<std::string> kRedundant = {
    // Before O goes through Q's memory: the loop's own barriers already come after the warp's last reads of
    // Q.
    "d64: bar.warp.sync 0", "d128: bar.warp.sync 0", "d80 window: bar.warp.sync 0",
    "d40 tails: bar.warp.sync 0", "d33 element by element: bar.warp.sync 0",
    // Rows that are aligned to an element only are not copied asynchronously: there is nothing to commit or
    // wait for.
    "d33 element by element: cp.async.commit_group 0", "d33 element by element: cp.async.commit_group 1",
    "d33 element by element: cp.async.commit_group 2", "d33 element by element: cp.async.wait_group 0",
    "d33 element by element: cp.async.wait_group 1",
    // The fence of PV: nothing touches registers between QK's and this one. ptxas wants one before each
    // product.
    "sm_90a causal d128: wgmma.fence 2", "sm_90a used lengths d64: wgmma.fence 2",
    // More registers for the math warps: the register file's size is not modelled.
    "sm_90a causal d128: setmaxnreg 1", "sm_90a used lengths d64: setmaxnreg 1",
    // No row has keys behind its end here, so that no tail is cleared.
    "sm_90a causal d128: bar.sync 1", "sm_90a causal d128: fence.proxy.async 0",
    // Ordered by other barriers with this schedule (the other shape needs them): two stages of K, whose slots are given
    // back after Q's and the item's.
    "sm_90a causal d128: mbarrier.try_wait 0", "sm_90a causal d128: mbarrier.try_wait 2",
    "sm_90a causal d128: mbarrier.try_wait 13", "sm_90a causal d128: bar.warp.sync 0"};

} // namespace

TEST_CASE("no synchronisation of the kernels can be left out unseen") {
  std::set<std::string> unseen;
  size_t count = 0;
  for (const Shape &shape : kShapes) {
    const Compiled original = compile(shape);
    REQUIRE(original.error == "");
    for (const Mutant &m : mutants(original.ptx[0])) {
      const std::string name = shape.name + ": " + m.name;
      Compiled mutant = original;
      mutant.ptx[0] = m.ptx;
      ++count;
      bool seen = false;
      std::string how;
      for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Random}) {
        if (seen)
          break;
        Options options;
        options.async = mode;
        const Outcome outcome = runAttention(shape, mutant, options);
        seen = !outcome.good();
        how = outcome.text();
      }
      if (!seen)
        unseen.insert(name);
      INFO(name << ": " << how);
      CHECK(seen == !kRedundant.contains(name));
    }
  }
  CHECK(count > 30);
  std::string list;
  for (const std::string &name : unseen)
    list += "\n  " + name;
  MESSAGE(count << " mutants, unseen:" << list);
}
