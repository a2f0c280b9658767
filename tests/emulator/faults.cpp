// SPDX-License-Identifier: BSD-3-Clause
// Every check has a kernel with the bug, which must be reported at the right line, lane and address, and the
// kernel without it, which must be clean in every mode.
#include "tests/emulator/run.h"

#include <algorithm>
#include <doctest/doctest.h>

using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

/// `//BUG` ends the line that must be reported; `//PARTY` the line that must be named as the other one.
struct Planted {
  const char *name;
  FaultKind kind;
  const char *bug, *fixed;
  const char *says = "";
  int warp = -2, lane = -2; ///< -2: any.
  uint32_t threads = 32, dynamic_shared = 0;
  size_t input = 128, output = 128; ///< Times the warps.
};

Case makeCase(const Planted &p, const char *body) {
  Case c;
  c.name = p.name;
  c.ptx = module(body, ".shared .align 128 .b8 buffer[1024];");
  c.threads = p.threads;
  c.input.assign(p.input * (p.threads / 32), 1);
  c.output_bytes = p.output * (p.threads / 32);
  c.dynamic_shared = p.dynamic_shared;
  return c;
}

int lineOf(const std::string &text, const std::string &mark) {
  const size_t at = text.find(mark);
  if (at == std::string::npos)
    return 0;
  return 1 + int(std::count(text.begin(), text.begin() + long(at), '\n'));
}

constexpr const char *kAddresses =
    "shl.b32 %r1, %gid, 2;\nmov.u32 %r2, buffer;\nadd.u32 %r1, %r1, %r2;\n"
    "mul.wide.u32 %rd1, %gid, 4;\nadd.s64 %rd2, %rd1, %in;\nadd.s64 %rd3, %rd1, %out;\n";

const Planted kPlanted[] = {
    {"global read past the end", FaultKind::OutOfBounds, "ld.global.b32 %r5, [%rd2+4]; //BUG",
     "ld.global.b32 %r5, [%rd2];", "0 bytes past the end of an allocation of 128", 0, 31},
    {"global write before the start", FaultKind::OutOfBounds, "st.global.b32 [%rd3+-4], %gid; //BUG",
     "st.global.b32 [%rd3], %gid;", "", 0, 0},
    {"straddles the end", FaultKind::OutOfBounds,
     "mul.wide.u32 %rd4, %gid, 4;\nadd.s64 %rd4, %rd4, %in;\nsub.s64 %rd4, %rd4, 4;\nand.b64 %rd5, %rd4, "
     "-8;\nld.global.b64 %rd6, [%rd5+120]; //BUG",
     "ld.global.b64 %rd6, [%in+120];", "", 0},
    {"null pointer", FaultKind::OutOfBounds, "mov.b64 %rd4, 0;\nld.global.b32 %r5, [%rd4]; //BUG",
     "ld.global.b32 %r5, [%in];", "below all device memory", 0, 0},
    {"global misaligned", FaultKind::Misaligned, "ld.global.b32 %r5, [%in+2]; //BUG",
     "ld.global.b32 %r5, [%in+4];", "multiple of 4", 0, 0},
    {"vector misaligned", FaultKind::Misaligned, "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%in+8]; //BUG",
     "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%in+16];", "multiple of 16"},
    {"shared out of bounds", FaultKind::OutOfBounds, "st.shared.b32 [%r1+1000], %gid; //BUG",
     "st.shared.b32 [%r1+800], %gid;", "the CTA has 1024 bytes", 0, 6},
    {"shared below", FaultKind::OutOfBounds, "mov.u32 %r5, 0;\nst.shared.b32 [%r5], %gid; //BUG",
     "st.shared.b32 [%r1], %gid;"},
    {"shared misaligned", FaultKind::Misaligned, "st.shared.b64 [%r2+4], %rd1; //BUG",
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 st.shared.b64 [%r2+8], %rd1;"},
    {"past the parameters", FaultKind::OutOfBounds, "ld.param.b64 %rd6, [output+8]; //BUG",
     "ld.param.b64 %rd6, [output];", "16 bytes of parameters"},
    {"unwritten global", FaultKind::UninitialisedMemory, "ld.global.b32 %r5, [%rd3]; //BUG",
     "st.global.b32 [%rd3], %gid;\nld.global.b32 %r5, [%rd3];"},
    {"unwritten shared", FaultKind::UninitialisedMemory, "ld.shared.b32 %r5, [%r1+512]; //BUG",
     "st.shared.b32 [%r1+512], %gid;\nld.shared.b32 %r5, [%r1+512];"},
    {"atomic on unwritten shared", FaultKind::UninitialisedMemory,
     "atom.shared.add.u32 %r5, [%r2], %gid; //BUG",
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 st.shared.b32 [%r2], %gid;\nbar.warp.sync -1;\natom.shared.add.u32 "
     "%r5, [%r2], %gid;"},
    {"half written shared", FaultKind::UninitialisedMemory,
     "mov.b16 %rs1, 3;\nst.shared.b16 [%r1], %rs1;\nld.shared.b32 %r5, [%r1]; //BUG",
     "mov.b16 %rs1, 3;\nst.shared.b16 [%r1], %rs1;\nst.shared.b16 [%r1+2], %rs1;\nld.shared.b32 %r5, [%r1];"},
    {"unwritten local", FaultKind::UninitialisedMemory,
     "{ .local .align 4 .b8 frame[8];\nld.local.b32 %r5, [frame+4]; //BUG\n}",
     "{ .local .align 4 .b8 frame[8];\nst.local.b32 [frame+4], %gid;\nld.local.b32 %r5, [frame+4];\n}"},
    {"unwritten register", FaultKind::UninitialisedRegister, "add.u32 %r5, %r6, 1; //BUG",
     "mov.u32 %r6, 1;\nadd.u32 %r5, %r6, 1;", "%r6"},
    {"register written on one path", FaultKind::UninitialisedRegister,
     "setp.lt.u32 %p1, %gid, 9;\n@%p1 mov.u32 %r6, 1;\nadd.u32 %r5, %r6, 1; //BUG",
     "setp.lt.u32 %p1, %gid, 9;\n@%p1 mov.u32 %r6, 1;\n@!%p1 mov.u32 %r6, 2;\nadd.u32 %r5, %r6, 1;", "%r6", 0,
     9},
    {"unwritten predicate", FaultKind::UninitialisedRegister, "@%p5 add.u32 %r5, %gid, 1; //BUG",
     "setp.eq.u32 %p5, %gid, 0;\n@%p5 add.u32 %r5, %gid, 1;", "%p5"},
    {"unwritten half", FaultKind::UninitialisedRegister,
     "mov.b16 %rs1, 1;\nmov.b32 %r5, {%rs1, %rs2};\nadd.u32 %r6, %r5, 1; //BUG",
     "mov.b16 %rs1, 1;\nmov.b32 %r5, {%rs1, %rs2};\nmov.b32 {%rs3, _}, %r5;\nadd.u16 %rs4, %rs3, 1;", "%r5"},
    {"read after write in another warp", FaultKind::Race,
     "st.shared.b32 [%r1], %gid; //PARTY\nxor.b32 %r5, %r1, 128;\nsetp.ge.u32 %p1, %gid, 32;\n@%p1 "
     "ld.shared.b32 %r6, [%r5]; //BUG",
     "st.shared.b32 [%r1], %gid;\nbar.sync 0;\nxor.b32 %r5, %r1, 128;\nld.shared.b32 %r6, [%r5];",
     "written by warp 0, lane 0", 1, 0, 64},
    {"read after write in another lane", FaultKind::Race,
     "st.shared.b32 [%r1], %gid; //PARTY\nxor.b32 %r5, %r1, 4;\nld.shared.b32 %r6, [%r5]; //BUG",
     "st.shared.b32 [%r1], %gid;\nbar.warp.sync -1;\nxor.b32 %r5, %r1, 4;\nld.shared.b32 %r6, [%r5];",
     "written by warp 0, lane 1", 0, 0},
    {"write after read", FaultKind::Race,
     "st.shared.b32 [%r1], %gid;\nbar.sync 0;\nxor.b32 %r5, %r1, 128;\nld.shared.b32 %r6, [%r5]; "
     "//PARTY\nsetp.lt.u32 %p1, %gid, 32;\n@%p1 st.shared.b32 [%r1], %r6; //BUG",
     "st.shared.b32 [%r1], %gid;\nbar.sync 0;\nxor.b32 %r5, %r1, 128;\nld.shared.b32 %r6, [%r5];\nbar.sync "
     "0;\nst.shared.b32 [%r1], %r6;",
     "read by warp", -2, -2, 64},
    {"write after write", FaultKind::Race, "st.shared.b32 [%r2], %gid; //PARTY",
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 st.shared.b32 [%r2], %gid;", "written by warp 0, lane 0", 0, 1},
    {"named barrier orders only its own", FaultKind::Race,
     "setp.ge.u32 %p1, %gid, 64;\n@%p1 bra THIRD;\nst.shared.b32 [%r1], %gid; //PARTY\nbar.sync 1, "
     "64;\nbra.uni END;\nTHIRD:\nld.shared.b32 %r5, [%r2]; //BUG\nEND:",
     "setp.ge.u32 %p1, %gid, 64;\n@%p1 bra THIRD;\nst.shared.b32 [%r1], %gid;\nbar.sync 1, 96;\nbra.uni "
     "END;\nTHIRD:\nbar.sync 1, 96;\nld.shared.b32 %r5, [%r2];\nEND:",
     "written by warp 0, lane 0", 2, 0, 96},
    {"atomics race with stores", FaultKind::Race,
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 st.shared.b32 [%r2], %gid; //PARTY\natom.shared.exch.b32 %r5, [%r2], "
     "%gid; //BUG",
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 st.shared.b32 [%r2], %gid;\nbar.warp.sync -1;\natom.shared.exch.b32 "
     "%r5, [%r2], %gid;"},
    {"cp.async read before the wait", FaultKind::AsyncPending,
     "cp.async.ca.shared.global [%r1], [%rd2], 4; //PARTY\ncp.async.commit_group;\nld.shared.b32 %r5, [%r1]; "
     "//BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.commit_group;\ncp.async.wait_group "
     "0;\nld.shared.b32 %r5, [%r1];",
     "copied by warp 0, lane 0"},
    {"cp.async not committed", FaultKind::AsyncPending,
     "cp.async.ca.shared.global [%r1], [%rd2], 4; //PARTY\ncp.async.wait_group 0;\nld.shared.b32 %r5, [%r1]; "
     "//BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.wait_all;\nld.shared.b32 %r5, [%r1];"},
    {"cp.async wrong group", FaultKind::AsyncPending,
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.commit_group;\ncp.async.ca.shared.global "
     "[%r1+256], [%rd2], 4; //PARTY\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.b32 %r5, "
     "[%r1+256]; //BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.commit_group;\ncp.async.ca.shared.global "
     "[%r1+256], [%rd2], 4;\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.b32 %r5, [%r1];"},
    {"cp.async written twice", FaultKind::AsyncPending,
     "cp.async.ca.shared.global [%r1], [%rd2], 4; //PARTY\ncp.async.ca.shared.global [%r1], [%rd2], 4; //BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.wait_all;\ncp.async.ca.shared.global [%r1], "
     "[%rd2], 4;\ncp.async.wait_all;"},
    {"cp.async stored over", FaultKind::AsyncPending,
     "cp.async.ca.shared.global [%r1], [%rd2], 4; //PARTY\nst.shared.b32 [%r1], %gid; //BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.wait_all;\nst.shared.b32 [%r1], %gid;"},
    {"cp.async waited for by another thread only", FaultKind::Race,
     "cp.async.ca.shared.global [%r1], [%rd2], 4; //PARTY\ncp.async.wait_all;\nxor.b32 %r5, %r1, "
     "4;\nld.shared.b32 %r6, [%r5]; //BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;\ncp.async.wait_all;\nbar.warp.sync -1;\nxor.b32 %r5, %r1, "
     "4;\nld.shared.b32 %r6, [%r5];"},
    {"cp.async over what is read", FaultKind::Race,
     "st.shared.b32 [%r1], %gid;\nbar.sync 0;\nxor.b32 %r5, %r1, 128;\nld.shared.b32 %r6, [%r5]; "
     "//PARTY\nsetp.lt.u32 %p1, %gid, 32;\n@%p1 cp.async.ca.shared.global [%r1], [%in], 4; //BUG",
     "st.shared.b32 [%r1], %gid;\nbar.sync 0;\nxor.b32 %r5, %r1, 128;\nld.shared.b32 %r6, [%r5];\nbar.sync "
     "0;\ncp.async.ca.shared.global [%r1], [%in], 4;\ncp.async.wait_all;",
     "read by warp", -2, -2, 64},
    {"cp.async past the end", FaultKind::OutOfBounds, "cp.async.ca.shared.global [%r1], [%rd2+4], 4; //BUG",
     "cp.async.ca.shared.global [%r1], [%rd2], 4;", "", 0, 31},
    {"cp.async misaligned", FaultKind::Misaligned, "cp.async.cg.shared.global [%r2], [%in+8], 16; //BUG",
     "setp.eq.u32 %p1, %gid, 0;\n@%p1 cp.async.cg.shared.global [%r2], [%in+16], 16;"},
    {"barrier count", FaultKind::Barrier, "bar.sync 1, 48; //BUG", "bar.sync 1, 64;", "multiple of 32", -2,
     -2, 64},
    {"barrier id", FaultKind::Barrier, "bar.sync 16; //BUG", "bar.sync 15;", "0 to 15"},
    {"barrier with two counts", FaultKind::Barrier,
     "setp.ge.u32 %p1, %gid, 32;\n@%p1 bra B;\nbar.sync 1, 96;\nbra.uni END;\nB:\nbar.sync 1, 64; "
     "//BUG\nEND:",
     "setp.ge.u32 %p1, %gid, 32;\n@%p1 bra B;\nbar.sync 1, 96;\nbra.uni END;\nB:\nbar.sync 1, 96;\nEND:",
     "begun for 96", 1, -2, 96},
    {"barrier twice", FaultKind::Barrier, "bar.arrive 1, 64;\nbar.arrive 1, 64; //BUG",
     "bar.arrive 1, 32;\nbar.arrive 1, 32;", "second time", 0, -2, 64},
    {"barrier nobody else comes to", FaultKind::Deadlock,
     "setp.ge.u32 %p1, %gid, 32;\n@%p1 bra END;\nbar.sync 1, 64; //BUG\nEND:",
     "setp.ge.u32 %p1, %gid, 32;\n@%p1 bra B;\nbar.sync 1, 64;\nbra.uni END;\nB:\nbar.arrive 1, 64;\nEND:",
     "32 threads have arrived, it wants 64", 0, -2, 64},
    {"divergent barrier", FaultKind::Divergence, "setp.lt.u32 %p1, %gid, 9;\n@%p1 bar.sync 0; //BUG",
     "bar.sync 0;", "", 0, 9},
    {"divergent ldmatrix", FaultKind::Divergence,
     "shl.b32 %r5, %gid, 4;\nadd.u32 %r5, %r5, %r2;\nst.shared.b32 [%r5], 1;\nst.shared.b32 [%r5+4], "
     "1;\nst.shared.b32 [%r5+8], 1;\nst.shared.b32 [%r5+12], 1;\nbar.warp.sync -1;\nsetp.lt.u32 %p1, %gid, "
     "31;\n@%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5]; //BUG",
     "shl.b32 %r5, %gid, 4;\nadd.u32 %r5, %r5, %r2;\nst.shared.b32 [%r5], 1;\nst.shared.b32 [%r5+4], "
     "1;\nst.shared.b32 [%r5+8], 1;\nst.shared.b32 [%r5+12], 1;\nbar.warp.sync "
     "-1;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5];",
     "", 0, 31},
    {"divergent shuffle", FaultKind::Divergence,
     "setp.lt.u32 %p1, %gid, 16;\n@%p1 shfl.sync.bfly.b32 %r5, %gid, 1, 31, -1; //BUG",
     "setp.lt.u32 %p1, %gid, 16;\n@%p1 shfl.sync.bfly.b32 %r5, %gid, 1, 31, 0xffff;", "lane 16"},
    {"shuffle from outside", FaultKind::Divergence,
     "setp.lt.u32 %p1, %gid, 16;\n@%p1 shfl.sync.bfly.b32 %r5, %gid, 16, 31, 0xffff; //BUG",
     "setp.lt.u32 %p1, %gid, 16;\n@%p1 shfl.sync.bfly.b32 %r5, %gid, 8, 31, 0xffff;"},
    {"divergent warp barrier", FaultKind::Divergence,
     "setp.lt.u32 %p1, %gid, 9;\n@%p1 bra B;\nbar.warp.sync -1; //BUG\nB:", "bar.warp.sync -1;"},
    {"division by zero", FaultKind::Trap, "mov.u32 %r5, 0;\ndiv.u32 %r6, %gid, %r5; //BUG",
     "mov.u32 %r5, 2;\ndiv.u32 %r6, %gid, %r5;"},
    {"trap", FaultKind::Trap, "trap; //BUG", ""},
};

} // namespace

TEST_CASE("every planted bug is reported where it is, and its twin is clean") {
  for (const Planted &p : kPlanted) {
    INFO(std::string(p.name));
    const std::string bug_body = std::string(kAddresses) + p.bug,
                      fixed_body = std::string(kAddresses) + p.fixed;
    const Case bug = makeCase(p, bug_body.c_str()), fixed = makeCase(p, fixed_body.c_str());
    for (AsyncMode mode : {AsyncMode::Late, AsyncMode::Eager, AsyncMode::Random})
      for (uint64_t seed : {1, 2}) {
        Options options;
        options.async = mode;
        options.seed = seed;
        const Ran clean = run(fixed, options);
        CHECK(clean.error == "");
        const Ran ran = run(bug, options);
        CHECK_MESSAGE(ran.fault.has_value(), "not reported; " << ran.error);
        if (!ran.fault)
          continue;
        const Fault &f = *ran.fault;
        INFO(f.text());
        const int line = lineOf(bug.ptx, "//BUG"), party = lineOf(bug.ptx, "//PARTY");
        // Between warps, a random order of turns may meet the bug from its other side.
        if (mode == AsyncMode::Random && p.threads > 32 && (f.kind != p.kind || f.where.line != line))
          continue;
        CHECK(f.kind == p.kind);
        CHECK(f.where.line == (line ? line : party)); // no BUG: both are one instruction
        CHECK(f.text().find(p.says) != std::string::npos);
        if (party)
          CHECK(f.other.find("at line " + std::to_string(party)) != std::string::npos);
        if (p.warp != -2 && mode == AsyncMode::Late)
          CHECK(f.where.warp == p.warp);
        if (p.lane != -2)
          CHECK(f.where.lane == p.lane);
        if (p.kind == FaultKind::OutOfBounds || p.kind == FaultKind::Misaligned || p.kind == FaultKind::Race)
          CHECK(f.address.has_value());
      }
  }
}

TEST_CASE("a kernel that may overlap the one before it waits before it touches memory, in every block") {
  auto ranWith = [](const std::string &body, bool overlaps = true) {
    Case c;
    c.name = "overlaps";
    c.ptx = module((kAddresses + body).c_str(), overlaps
                                                    ? ".shared .align 128 .b8 buffer[1024];\n"
                                                      ".visible .global .align 4 .u32 flashplus_overlaps = 1;"
                                                    : ".shared .align 128 .b8 buffer[1024];");
    c.threads = 64;
    c.input.assign(256, 1);
    c.output_bytes = 256;
    return run(c, Options());
  };
  const std::string wait = "griddepcontrol.wait;\n", load = "ld.global.b32 %r5, [%rd2];\n",
                    store = "st.global.b32 [%rd3], %gid;\n", own = "ld.shared.b32 %r5, [%r1];\n",
                    first_warp = "setp.lt.u32 %p1, %gid, 32;\n@%p1 griddepcontrol.wait;\n";
  for (const std::string &good :
       {wait + load + store, "st.shared.b32 [%r1], %gid;\n" + own + wait, first_warp})
    CHECK_MESSAGE(!ranWith(good).fault, good);
  for (const std::string &bad : {load + wait, store + wait, first_warp + load, first_warp + store}) {
    CHECK_MESSAGE(!ranWith(bad, false).fault, bad);
    const Ran ran = ranWith(bad);
    REQUIRE_MESSAGE(ran.fault.has_value(), bad);
    CHECK(ran.fault->kind == FaultKind::Race);
    CHECK(ran.fault->text().find("before griddepcontrol.wait") != std::string::npos);
  }
  const Ran without = ranWith("griddepcontrol.launch_dependents;\n");
  REQUIRE(without.fault.has_value());
  CHECK(without.fault->text().find("exits without griddepcontrol.wait") != std::string::npos);
  CHECK(ranWith("ld.global.nc.b32 %r5, [%rd2];\n", false).error == "");
  CHECK(ranWith(wait + "ld.global.nc.b32 %r5, [%rd2];\n").error.find("must be constant") !=
        std::string::npos);
}

TEST_CASE("a fault names the address and the block") {
  Case c = makeCase(
      kPlanted[0],
      (std::string(kAddresses) + "setp.eq.u32 %p1, %cta, 2;\n@%p1 st.shared.b32 [%r2+2048], %gid;").c_str());
  c.blocks = 4;
  c.input.assign(4 * 128, 1);
  const Ran ran = run(c);
  REQUIRE(ran.fault);
  CHECK(ran.fault->where.cta[0] == 2);
  CHECK(ran.fault->address == kSharedBase + 2048);
  CHECK(ran.fault->space == Space::Shared);
  CHECK(ran.fault->instruction == "@%p1 st.shared.b32 [%r2+2048], %gid");
  CHECK(ran.error.find("CTA (2, 0, 0), warp 0, lane 0") != std::string::npos);
}

TEST_CASE("a block finds nothing of the one before it in shared memory") {
  // In block 0 warp 0 writes words 0 to 31 and 224 to 255, and warp 1 reads the first ones. Later blocks run
  // `later` in warp 0.
  auto ranWith = [](const std::string &later) {
    const std::string body = std::string(kAddresses) +
                             "mov.u32 %r6, %tid.x;\nand.b32 %r3, %r6, 31;\nshl.b32 %r3, %r3, 2;\n"
                             "add.u32 %r3, %r3, %r2;\nsetp.lt.u32 %p2, %r6, 32;\n"
                             "setp.eq.u32 %p1, %cta, 0;\n@!%p1 bra LATER;\n"
                             "@%p2 st.shared.b32 [%r3], %gid;\n@%p2 st.shared.b32 [%r3+896], %gid;\n"
                             "bar.sync 0;\n@!%p2 ld.shared.b32 %r4, [%r3];\nret;\nLATER:\n" +
                             later;
    Case c = makeCase(kPlanted[0], body.c_str());
    c.threads = 64;
    c.blocks = 3;
    c.input.assign(3 * 256, 1);
    Options options;
    options.threads = 1;
    return run(c, options);
  };
  for (const char *read : {"@%p2 ld.shared.b32 %r4, [%r3];\n", "@%p2 ld.shared.b32 %r4, [%r3+896];\n"}) {
    const Ran ran = ranWith(read);
    REQUIRE_MESSAGE(ran.fault, ran.error);
    CHECK(ran.fault->kind == FaultKind::UninitialisedMemory);
    CHECK(ran.fault->where.cta[0] == 1);
  }
  // No race with warp 1, which reads nothing in this block.
  const Ran ran = ranWith("@%p2 st.shared.b32 [%r3], %gid;\n@%p2 ld.shared.b32 %r4, [%r3];\n"
                          "@%p2 st.shared.b32 [%r3], %gid;\n");
  CHECK_MESSAGE(!ran.fault, ran.error);
}

TEST_CASE("a kernel that never ends stops, with the state of every warp") {
  Case c =
      makeCase(kPlanted[0],
               "setp.ge.u32 %p1, %gid, 32;\n@%p1 bra WAIT;\nLOOP:\nbra.uni LOOP;\nWAIT:\nbar.sync 2, 64;");
  c.threads = 64;
  Options options;
  options.step_limit = 200000;
  const Ran ran = run(c, options);
  REQUIRE(ran.fault);
  CHECK(ran.fault->kind == FaultKind::StepLimit);
  CHECK(ran.fault->where.line == lineOf(c.ptx, "bra.uni LOOP"));
  CHECK(ran.fault->other.find("warp 1 waits at barrier 2 at line " +
                              std::to_string(lineOf(c.ptx, "bar.sync 2"))) != std::string::npos);
}

TEST_CASE("launches that do not fit the entry") {
  auto launchOf = [](const std::string &directive, uint32_t threads, uint32_t shared, size_t params) {
    Case c = makeCase(kPlanted[0], "");
    std::string ptx = c.ptx;
    ptx.insert(ptx.find("\n{"), "\n" + directive);
    auto program = loadProgram(ptx, "test");
    REQUIRE(program);
    GlobalMemory memory;
    std::vector<uint8_t> bytes(params);
    LaunchConfig config;
    config.block = {threads, 1, 1};
    config.dynamic_shared = shared;
    config.params = bytes;
    Options options;
    options.shared_limit = 48 * 1024;
    const LaunchResult r = launch(**program, memory, config, options);
    return r.fault ? r.fault->text() : std::string();
  };
  CHECK(launchOf("", 32, 0, 16) == "");
  CHECK(launchOf("", 32, 47 * 1024, 16) == "");
  CHECK(launchOf("", 32, 47 * 1024 + 1, 16).find("49153 bytes of shared memory; a block may use 49152") !=
        std::string::npos);
  CHECK(launchOf("", 0, 0, 16).find("it must be 1 to 1024") != std::string::npos);
  CHECK(launchOf("", 1025, 0, 16).find("it must be 1 to 1024") != std::string::npos);
  CHECK(launchOf(".reqntid 64, 1, 1", 32, 0, 16).find("requires (64, 1, 1)") != std::string::npos);
  CHECK(launchOf(".maxntid 64", 96, 0, 16).find("96 threads") != std::string::npos);
  CHECK(launchOf("", 32, 0, 15).find("15 bytes of parameters; the entry takes 16") != std::string::npos);
}

TEST_CASE("bank conflicts are counted, not errors") {
  auto conflicts = [](const std::string &body, uint64_t &passes) {
    const std::string all = std::string(kAddresses) + body;
    const Ran ran = run(makeCase(kPlanted[0], all.c_str()));
    CHECK(ran.error == "");
    uint64_t extra = 0;
    passes = 0;
    for (const InstructionCount &c : ran.statistics.by_pc) {
      extra += c.conflicts;
      passes += c.wavefronts;
    }
    return extra;
  };
  uint64_t passes = 0;
  CHECK(conflicts("st.shared.b32 [%r1], %gid;", passes) == 0);
  CHECK(passes == 1);
  CHECK(conflicts("mul.lo.u32 %r5, %gid, 8;\nadd.u32 %r5, %r5, %r2;\nst.shared.b32 [%r5], %gid;", passes) ==
        1); // stride 2 words
  CHECK(conflicts("mul.lo.u32 %r5, %gid, 32;\nadd.u32 %r5, %r5, %r2;\nst.shared.b32 [%r5], %gid;", passes) ==
        7); // stride 8 words
  CHECK(conflicts("st.shared.b32 [%r1], %gid;\nbar.warp.sync -1;\nld.shared.b32 %r5, [%r2];", passes) ==
        0); // one word for all
  CHECK(passes == 2);
  // 16 bytes a lane go in four phases of eight lanes; stride 16 bytes is free, 32 bytes doubles each.
  CHECK(
      conflicts(
          "shl.b32 %r5, %gid, 4;\nadd.u32 %r5, %r5, %r2;\nst.shared.v4.b32 [%r5], {%gid, %gid, %gid, %gid};",
          passes) == 0);
  CHECK(passes == 4);
  CHECK(
      conflicts(
          "shl.b32 %r5, %gid, 5;\nadd.u32 %r5, %r5, %r2;\nst.shared.v4.b32 [%r5], {%gid, %gid, %gid, %gid};",
          passes) == 4);
}

TEST_CASE("emulator: a gap that no 32-bit index of fp32 crosses lies between two allocations") {
  GlobalMemory memory;
  std::vector<std::pair<uint64_t, uint64_t>> blocks; // first, last byte
  for (size_t bytes : {1, 256, 4096, 100000, 0, 4095, 16})
    for (int i = 0; i < 4; ++i) {
      void *at = memory.allocate(bytes);
      REQUIRE(at);
      blocks.push_back(
          {reinterpret_cast<uint64_t>(at), reinterpret_cast<uint64_t>(at) + std::max<size_t>(bytes, 1) - 1});
      CHECK(blocks.back().first % 256 == 0);
      CHECK(memory.find(blocks.back().first, std::max<size_t>(bytes, 1)));
      CHECK_FALSE(memory.find(blocks.back().first + std::max<size_t>(bytes, 1), 1));
      if (i == 2) { // what is given back may be taken again
        CHECK(memory.release(at));
        blocks.pop_back();
      }
    }
  std::sort(blocks.begin(), blocks.end());
  for (size_t i = 1; i < blocks.size(); ++i)
    CHECK(blocks[i].first - blocks[i - 1].second > GlobalMemory::kGap);
}
