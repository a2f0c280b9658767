// SPDX-License-Identifier: BSD-3-Clause
// Tensor copies against their definition, and the bugs that Hopper's asynchronous instructions invite,
// planted.
#include "tests/emulator/hopper_module.h"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>

using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

constexpr const char *kSetUp =
    "mov.u32 %r1, tile;\nmov.u32 %r2, bars;\nmov.b64 %rd1, map;\ncvta.param.u64 %rd1, %rd1;\n"
    "mul.wide.u32 %rd2, %gid, 4;\nadd.s64 %rd3, %rd2, %out;\nadd.s64 %rd4, %rd2, %in;\n"
    "shl.b32 %r3, %gid, 2;\nadd.u32 %r3, %r3, %r1;\nsetp.eq.u32 %p1, %gid, 0;\n";

} // namespace

namespace {

struct Planted {
  const char *name;
  FaultKind kind;
  std::string body, says;
  const char *bug, *fixed; ///< Take the place of "$" in the body.
  const char *directives = ".reqntid 128 .minnctapersm 1";
};

// A ring of one slot: thread 0 copies 64 x 8 elements, everybody waits and reads.
const std::string kInit =
    "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p1 mbarrier.init.shared::cta.b64 [%r2+8], 128;\n"
    "@%p1 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n";
const std::string kCopy =
    "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;\n"
    "@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {0, "
    "0}], [%r2];\n";
const std::string kCopyFrom = // a column
    "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;\n"
    "@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {$, "
    "0}], [%r2];\n";
const std::string kWait = "W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra W;\n";
const std::string kRead = "ld.shared.b32 %r10, [%r3];\n";
// Thread 0 copies again into the slot, once it is empty.
const std::string kAgain =
    "E: mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r2+8], 0;\n@!%p3 bra E;\n" + kCopy;
// A and B as zeros, stored by the threads, and their descriptors (128-byte swizzle).
const std::string kZeros = "mov.u32 %r8, 0;\nZ: st.shared.b32 [%r3], 0;\nadd.u32 %r3, %r3, 512;\nadd.u32 "
                           "%r8, %r8, 1;\nsetp.lt.u32 %p3, %r8, 32;\n@%p3 bra Z;\n";
const std::string kDescriptors = "shr.u32 %r9, %r1, 4;\ncvt.u64.u32 %rd10, %r9;\nor.b64 %rd10, %rd10, "
                                 "0x4000004000010000;\nadd.s64 %rd11, %rd10, 512;\n";
const std::string kVisible = "fence.proxy.async.shared::cta;\nbar.sync 0;\n";
const std::string kOperands = "{%r20, %r21, %r22, %r23}";
std::string wgmma(const char *a = "%rd10", const char *tail = ", 0, 1, 1, 0, 0;\n") {
  return "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 " + kOperands + ", " + a + ", %rd11" + tail;
}
const std::string kFence = "wgmma.fence.sync.aligned;\n", kCommit = "wgmma.commit_group.sync.aligned;\n",
                  kWaitGroup = "wgmma.wait_group.sync.aligned 0;\n", kUse = "add.f32 %r30, %r20, %r21;\n";
const std::string kA = "mov.b32 %r40, 0;\nmov.b32 %r41, 0;\nmov.b32 %r42, 0;\nmov.b32 %r43, 0;\n";
const std::string kProduct = kZeros + kDescriptors + kVisible;

// 512 bytes, to and from the tile.
const std::string kBytes =
    "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 512;\n"
    "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 512, [%r2];\n";
const std::string kStore = "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%r1], 512;\n";
const std::string kStored = "@%p1 cp.async.bulk.commit_group;\n@%p1 cp.async.bulk.wait_group 0;\n";

const std::vector<Planted> &planted() {
  static const std::vector<Planted> all = {
      {"no wait", FaultKind::AsyncPending, kInit + kCopy + "bar.sync 0;\n$" + kRead,
       "copied by warp 0, lane 0", "", kWait.c_str()},
      {"wrong parity", FaultKind::AsyncPending,
       kInit + kCopy +
           "bar.sync 0;\nW: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], $;\n@!%p2 bra W;\n" + kRead,
       "copied by", "1", "0"},
      {"one thread waits for all", FaultKind::AsyncPending,
       kInit + kCopy + "bar.sync 0;\n@!%p1 bra R;\n" + kWait + "R: $" + kRead, "", "", "bar.sync 0;\n"},
      {"too many bytes expected", FaultKind::Deadlock,
       kInit + "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], $;\n" +
           kCopy.substr(kCopy.find('\n') + 1) + kWait + kRead,
       "and 16 bytes to come", "1040", "1024"},
      {"nobody arrives", FaultKind::Deadlock, kInit + "$" + kWait, "1 of 1 arrivals", "",
       "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r2];\n"},
      {"one arrival too many", FaultKind::Barrier,
       kInit + "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r2]$;\n",
       "2 arrivals at an mbarrier that waits for 1", ", 2", ", 1"},
      {"initialised twice", FaultKind::Barrier, kInit + "$", "a second time",
       "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n", ""},
      {"not initialised", FaultKind::Barrier, kInit + "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r2+$];\n",
       "no initialised mbarrier", "16", "8"},
      {"no barrier after the initialisation", FaultKind::Race,
       "@%p1 mbarrier.init.shared::cta.b64 [%r2], 128;\n$mbarrier.arrive.shared::cta.b64 _, [%r2];\n",
       "initialised by warp 0, lane 0", "", "bar.sync 0;\n"},
      {"no fence after the initialisation", FaultKind::Race,
       "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n$bar.sync 0;\n" + kCopy + kWait, "fence.mbarrier_init",
       "", "@%p1 fence.mbarrier_init.release.cluster;\n"},
      {"copies over what is read", FaultKind::Race,
       kInit + kCopy + kWait + kRead + "$@!%p1 bra OUT;\n" + kAgain +
           "A: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 1;\n@!%p2 bra A;\nOUT:\n",
       "", "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r2+8], 128;\n",
       "mbarrier.arrive.shared::cta.b64 _, [%r2+8];\n"},
      {"copies over what was stored, unfenced", FaultKind::Race,
       kInit + "st.shared.b32 [%r3], %gid;\n$bar.sync 0;\n" + kCopy + kWait, "without a fence.proxy.async",
       "", "fence.proxy.async.shared::cta;\n"},
      {"copies twice into one place", FaultKind::AsyncPending,
       kInit + kCopy + "$" +
           "@%p1 mbarrier.init.shared::cta.b64 [%r2+16], 1;\n@%p1 fence.mbarrier_init.release.cluster;\n@%p1 "
           "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2+16], 1024;\n@%p1 "
           "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, "
           "{0, 0}], [%r2+16];\n@!%p1 bra OUT;\nA: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2+16], "
           "0;\n@!%p2 bra A;\nOUT:\n",
       "", "", kWait.c_str()},
      {"copy to a crooked place", FaultKind::Misaligned, kInit + "add.u32 %r1, %r1, $;\n" + kCopy + kWait,
       "a multiple of 1024", "512", "1024"},
      {"copy from a crooked column", FaultKind::Misaligned, kInit + kCopyFrom + kWait,
       "not at element 3 of 2 bytes", "3", "8"},
      {"copy from a crooked column in front", FaultKind::Misaligned, kInit + kCopyFrom + kWait,
       "not at element -10 of 2 bytes", "-10", "-16"},
      {"store to a crooked column", FaultKind::Misaligned,
       kZeros + kVisible +
           "@%p1 cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {$, 0}], [%r1];\n" +
           kStored,
       "not at element 4 of 2 bytes", "4", "8"},
      {"copy past the end of shared memory", FaultKind::OutOfBounds,
       kInit + "add.u32 %r1, %r1, $;\n" + kCopy + kWait, "outside memory", "16384", "15360"},
      {"matrix stored without a fence", FaultKind::Race,
       kZeros + kDescriptors + "$bar.sync 0;\n" + kFence + wgmma() + kCommit + kWaitGroup,
       "without a fence.proxy.async", "", "fence.proxy.async.shared::cta;\n"},
      {"matrix stored without a barrier", FaultKind::Race,
       kZeros + kDescriptors +
           "bar.sync 0;\nst.shared.b32 [%r3+-16384], 0;\nfence.proxy.async.shared::cta;\n$" + kFence +
           wgmma() + kCommit + kWaitGroup,
       "with nothing to order", "bar.warp.sync -1;\n", "bar.sync 0;\n"},
      {"matrix of the copy not waited for", FaultKind::AsyncPending,
       kInit + kZeros + kDescriptors + kVisible + kCopy + "$" + kFence + wgmma() + kCommit + kWaitGroup, "",
       "", kWait.c_str()},
      {"accumulator read in flight", FaultKind::AsyncPending,
       kProduct + kFence + wgmma() + kCommit + "$" + kUse, "%r20, the accumulator", "", kWaitGroup.c_str()},
      {"accumulator read with its group pending", FaultKind::AsyncPending,
       kProduct + kFence + wgmma() + kCommit + "wgmma.wait_group.sync.aligned $;\n" + kUse, "%r20", "1", "0"},
      {"group not committed", FaultKind::AsyncPending, kProduct + kFence + wgmma() + "$" + kWaitGroup + kUse,
       "%r20", "", kCommit.c_str()},
      {"copy of an accumulator in flight used", FaultKind::AsyncPending,
       kProduct + kFence + wgmma() + kCommit + "mov.b32 %r31, %r20;\n$add.f32 %r30, %r31, %r31;\n", "%r31",
       "", kWaitGroup.c_str()},
      {"accumulator written in flight", FaultKind::AsyncPending,
       kProduct + kFence + wgmma() + kCommit + "$mov.b32 %r20, 0;\n",
       "which a wgmma that has not been waited for accumulates in", "", kWaitGroup.c_str()},
      {"operand written in flight", FaultKind::AsyncPending,
       kProduct + kA + kFence + wgmma("{%r40, %r41, %r42, %r43}", ", 0, 1, 1, 0;\n") + kCommit +
           "$mov.b32 %r42, 1;\n",
       "reads", "", kWaitGroup.c_str()},
      {"no wgmma.fence", FaultKind::AsyncPending, kProduct + "$" + wgmma() + kCommit + kWaitGroup,
       "no wgmma.fence orders register %r20", "", kFence.c_str()},
      {"operand written after the fence", FaultKind::AsyncPending,
       kProduct + kA + kFence + "$" + wgmma("{%r40, %r41, %r42, %r43}", ", 0, 1, 1, 0;\n") + kCommit +
           kWaitGroup,
       "no wgmma.fence orders register %r41", "mov.b32 %r41, 1;\n", ""},
      {"accumulates on nothing", FaultKind::UninitialisedRegister,
       kProduct + kFence + wgmma("%rd10", ", $, 1, 1, 0, 0;\n") + kCommit + kWaitGroup, "%r20", "1", "0"},
      {"matrix overwritten in flight", FaultKind::Race,
       kInit + kProduct + kFence + wgmma() + kCommit + "$bar.sync 0;\n" + kCopy + kWaitGroup + kWait,
       "a wgmma reads that has not been waited for", "", kWaitGroup.c_str()},
      {"matrix outside shared memory", FaultKind::OutOfBounds,
       kProduct + "add.s64 %rd11, %rd11, $;\n" + kFence + wgmma() + kCommit + kWaitGroup,
       "a matrix lies outside", "512", "0"},
      {"wgmma by part of a warp", FaultKind::Divergence,
       kProduct + kFence + "setp.lt.u32 %p4, %gid, $;\n@%p4 " + wgmma() + kCommit + kWaitGroup, "", "100",
       "128"},
      {"exit with a copy under way", FaultKind::AsyncPending, kInit + kCopy + "$", "the CTA exits while", "",
       kWait.c_str()},
      {"bytes of a copy not waited for", FaultKind::AsyncPending, kInit + kBytes + "bar.sync 0;\n$" + kRead,
       "copied by warp 0, lane 0", "", kWait.c_str()},
      {"a copy of a crooked number of bytes", FaultKind::Misaligned,
       kInit +
           "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 512;\n@%p1 "
           "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], $, [%r2];\n" +
           kWait,
       "multiples of 16", "500", "512"},
      {"a copy from outside memory", FaultKind::OutOfBounds,
       kInit + "add.s64 %in, %in, $;\n" + kBytes + kWait, "from outside memory", "1024", "512"},
      {"a store of what was stored without a fence", FaultKind::Race,
       "st.shared.b32 [%r3], %gid;\n$bar.sync 0;\n" + kStore + kStored, "without a fence.proxy.async", "",
       "fence.proxy.async.shared::cta;\n"},
      {"a store of what nothing wrote", FaultKind::UninitialisedMemory, "$" + kVisible + kStore + kStored, "",
       "", "st.shared.b32 [%r3], %gid;\n"},
      {"overwritten under a store", FaultKind::AsyncPending,
       "st.shared.b32 [%r3], %gid;\n" + kVisible + kStore +
           "@%p1 cp.async.bulk.commit_group;\n$bar.sync 0;\n"
           "st.shared.b32 [%r3], 5;\n@%p1 cp.async.bulk.wait_group 0;\n",
       "a bulk store reads", "", "@%p1 cp.async.bulk.wait_group.read 0;\n"},
      {"overwritten by a thread that did not hear of the wait", FaultKind::Race,
       "st.shared.b32 [%r3], %gid;\n" + kVisible + kStore + kStored + "$st.shared.b32 [%r3], 5;\n", "reads",
       "", "bar.sync 0;\n"},
      {"the group before the last is waited for", FaultKind::AsyncPending,
       "st.shared.b32 [%r3], %gid;\n" + kVisible + kStore +
           "@%p1 cp.async.bulk.commit_group;\n@%p1 cp.async.bulk.wait_group.read $;\n",
       "a bulk store still reads", "1", "0"},
      {"a store not committed", FaultKind::AsyncPending,
       "st.shared.b32 [%r3], %gid;\n" + kVisible + kStore + "$@%p1 cp.async.bulk.wait_group 0;\n",
       "a bulk store still reads", "", "@%p1 cp.async.bulk.commit_group;\n"},
      {"a store past the end of memory", FaultKind::OutOfBounds,
       "st.shared.b32 [%r3], %gid;\n" + kVisible + "add.s64 %out, %out, $;\n" + kStore + kStored,
       "outside memory", "16", "0"},
      {"setmaxnreg without bounds", FaultKind::Launch, "setmaxnreg.dec.sync.aligned.u32 $;\n", "no effect",
       "40", "40", nullptr},
      {"setmaxnreg the wrong way", FaultKind::Launch, "setmaxnreg.dec.sync.aligned.u32 $;\n",
       "a decrease to 64 registers from 40", "40;\nsetmaxnreg.dec.sync.aligned.u32 64", "64"},
      {"more registers than there are", FaultKind::Deadlock,
       "setp.lt.u32 %p4, %gid, 32;\n@%p4 bra S;\nsetmaxnreg.inc.sync.aligned.u32 $;\nS:\n",
       "waits for registers", "240", "168", ".reqntid 384 .minnctapersm 1"},
      {"more registers than a CTA's share", FaultKind::Deadlock,
       "setp.lt.u32 %p4, %gid, 128;\n@%p4 bra S;\nsetmaxnreg.inc.sync.aligned.u32 216;\nbra T;\n"
       "S:\nsetmaxnreg.dec.sync.aligned.u32 $;\nT:\n",
       "waits for registers", "48", "40", ".reqntid 256 .minnctapersm 2"},
  };
  return all;
}

TensorMapContents rowsOf64() {
  TensorMapContents map;
  map.rank = 2;
  map.swizzle_bytes = 128;
  map.extent[0] = 64, map.extent[1] = 8;
  map.stride[0] = 128;
  map.box[0] = 64, map.box[1] = 8;
  return map;
}

} // namespace

TEST_CASE("every planted bug of Hopper's instructions is reported, and its twin is clean") {
  const TensorMapContents map = rowsOf64();
  for (const Planted &p : planted()) {
    const std::string name = p.name;
    INFO(name);
    const bool bare = !p.directives;
    auto with = [&](const char *what, bool bug) {
      std::string body = p.body;
      body.replace(body.find('$'), 1, what);
      Case c = hopperCase(
          hopperModule(std::string(kSetUp) + body, bare ? (bug ? "" : ".maxnreg 128") : p.directives), 1024,
          512, 16384);
      if (name == "more registers than there are")
        c.threads = 384; // 168 registers each at the entry
      if (name == "more registers than a CTA's share")
        c.threads = 256; // 128 registers each at the entry
      return c;
    };
    const Case bug = with(p.bug, true), fixed = with(p.fixed, false);
    for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Eager, AsyncMode::Random}) {
      Options options;
      options.async = mode;
      options.step_limit = 1000000;
      const Ran clean = run(fixed, options, &map);
      CHECK(clean.error == "");
      const Ran ran = run(bug, options, &map);
      CHECK_MESSAGE(ran.fault.has_value(), "not reported; " << ran.error);
      if (!ran.fault)
        continue;
      INFO(ran.fault->text());
      CHECK(ran.fault->where.line > lineOf(bug.ptx, "setp.eq.u32 %p1, %gid, 0;"));
      if (mode != AsyncMode::Late)
        continue; // once a copy has landed, or in another order of turns, the bug shows from another side
      CHECK(ran.fault->kind == p.kind);
      CHECK(ran.fault->text().find(p.says) != std::string::npos);
    }
  }
}

TEST_CASE("a tensor map that reaches outside its memory") {
  TensorMapContents map = rowsOf64();
  map.extent[1] = 9; // the input has 8 rows
  const std::string body = kSetUp + kInit + kCopy + kWait;
  Case c = hopperCase(hopperModule(body), 1024, 512, 16384);
  c.ptx.replace(c.ptx.find("{0, 0}"), 6, "{0, 1}");
  const Ran ran = run(c, {}, &map);
  REQUIRE(ran.fault);
  CHECK(ran.fault->kind == FaultKind::OutOfBounds);
  CHECK(ran.fault->where.line == lineOf(c.ptx, "cp.async.bulk"));
  map.magic = 0;
  CHECK(run(c, {}, &map).error.find("there is no tensor map") != std::string::npos);
}

TEST_CASE("tensor maps that the driver would not make, or that are not modelled") {
  Case c = hopperCase(hopperModule(kSetUp + kInit + kCopy + kWait), 1024, 512, 16384);
  const TensorMapContents good = rowsOf64();
  CHECK(run(c, {}, &good).error == "");
  struct {
    void (*spoil)(TensorMapContents &);
    const char *says;
  } const bad[] = {
      {[](TensorMapContents &m) { m.address = 8; }, "address is no multiple of 16"},
      {[](TensorMapContents &m) { m.stride[0] = 136; }, "stride is no multiple of 16"},
      {[](TensorMapContents &m) { m.box[1] = 257; }, "a side outside 1 to 256"},
      {[](TensorMapContents &m) { m.box[1] = 0; }, "a side outside 1 to 256"},
      {[](TensorMapContents &m) { m.box[0] = 60; }, "no multiple of 16 bytes"},
      {[](TensorMapContents &m) { m.box[0] = 72; }, "another width than its swizzle"},
      {[](TensorMapContents &m) { m.box[0] = 32; }, "another width than its swizzle"},
  };
  for (const auto &b : bad) {
    TensorMapContents map = good;
    b.spoil(map);
    const Ran ran = run(c, {}, &map);
    INFO(b.says << ": " << ran.error);
    REQUIRE(ran.fault);
    CHECK(ran.fault->kind == FaultKind::Launch);
    CHECK(ran.error.find(b.says) != std::string::npos);
  }
}
