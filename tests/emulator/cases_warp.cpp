// SPDX-License-Identifier: BSD-3-Clause
// Divergence, votes, shuffles, barriers, special registers.
#include "tests/emulator/cases.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace flashplus::emu::test {
namespace {

/// Every thread stores %r0 to output[%gid].
std::string storeResult() {
  return "\n\tcvt.u64.u32 %rd0, %gid;\n\tshl.b64 %rd0, %rd0, 2;\n\tadd.s64 %rd0, %rd0, "
         "%out;\n\tst.global.b32 [%rd0], %r0;\n";
}

void add(std::vector<Case> &cases, std::string name, std::string body, std::function<uint32_t(uint32_t)> f,
         uint32_t threads = 32, uint32_t blocks = 1, std::string declarations = "") {
  Case c;
  c.name = std::move(name);
  c.ptx = module(body + storeResult(), declarations);
  c.threads = threads;
  c.blocks = blocks;
  c.input.resize(16);
  c.output_bytes = size_t(threads) * blocks * 4;
  c.expect = [=](std::span<const uint8_t>, std::span<uint8_t> out) {
    for (uint32_t t = 0; t < threads * blocks; ++t) {
      const uint32_t v = f(t);
      std::memcpy(out.data() + t * 4, &v, 4);
    }
  };
  cases.push_back(std::move(c));
}

} // namespace

void addWarpCases(std::vector<Case> &cases) {
  add(
      cases, "special_registers",
      "mov.u32 %r1, %laneid; mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, "
      "%nctaid.x;"
      "mov.u32 %r6, %lanemask_lt; popc.b32 %r6, %r6; mad.lo.u32 %r0, %r1, 1000, %r2; mad.lo.u32 %r0, %r0, "
      "10, %r3;"
      "mad.lo.u32 %r0, %r0, 7, %r4; mad.lo.u32 %r0, %r0, 3, %r5; add.u32 %r0, %r0, %r6;",
      [](uint32_t t) {
        const uint32_t lane = t % 32, tid = t % 64, cta = t / 64;
        return (((lane * 1000 + tid) * 10 + cta) * 7 + 64) * 3 + 3 + lane;
      },
      64, 3);
  add(cases, "if_else",
      "and.b32 %r1, %gid, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra EVEN; add.u32 %r0, %gid, 100; bra.uni DONE; "
      "EVEN: mul.lo.u32 %r0, %gid, 3; DONE:",
      [](uint32_t t) { return t % 2 ? t + 100 : t * 3; });
  // The else side lies behind the join, as code generators may place it.
  add(cases, "if_far",
      "mov.u32 %r0, 5; setp.lt.u32 %p1, %gid, 7; @%p1 bra FAR; BACK: activemask.b32 %r1; popc.b32 %r1, %r1; "
      "add.u32 %r0, %r0, %r1; bra.uni OUT;"
      "FAR: mov.u32 %r0, 1000; bra.uni BACK; OUT:",
      [](uint32_t t) { return (t < 7 ? 1000 : 5) + 32; });
  add(cases, "nested_if",
      "mov.u32 %r0, 0; setp.ge.u32 %p1, %gid, 16; @%p1 bra HIGH; setp.ge.u32 %p2, %gid, 8; @%p2 bra MIDDLE; "
      "mov.u32 %r0, 1; bra JOIN1; MIDDLE: mov.u32 %r0, 2;"
      "JOIN1: activemask.b32 %r1; popc.b32 %r1, %r1; mad.lo.u32 %r0, %r1, 10, %r0; bra JOIN2; HIGH: mov.u32 "
      "%r0, 3; JOIN2: activemask.b32 %r1; popc.b32 %r1, %r1; mad.lo.u32 %r0, %r1, 1000, %r0;",
      [](uint32_t t) { return 32000 + (t >= 16 ? 3u : 160 + (t >= 8 ? 2 : 1)); });
  // Lanes leave a loop one after the other and meet behind it.
  add(cases, "loop_exit",
      "mov.u32 %r0, 0; mov.u32 %r1, 0; LOOP: add.u32 %r0, %r0, %r1; add.u32 %r1, %r1, 1; setp.le.u32 %p1, "
      "%r1, %gid; @%p1 bra LOOP; activemask.b32 %r2; popc.b32 %r2, %r2; mad.lo.u32 %r0, %r2, 10000, %r0;",
      [](uint32_t t) { return 320000 + t * (t + 1) / 2; });
  add(cases, "early_exit",
      "setp.ge.u32 %p1, %gid, 20; mov.u32 %r0, 9; @%p1 bra LEAVE; bra GO; LEAVE: mov.u32 %r0, 4;" +
          storeResult() + "exit; GO: activemask.b32 %r1; popc.b32 %r0, %r1;",
      [](uint32_t t) { return t >= 20 ? 4 : 20u; });
  add(cases, "guarded",
      "mov.u32 %r0, 1; setp.lt.u32 %p1, %gid, 3; @%p1 mov.u32 %r0, 2; @!%p1 add.u32 %r0, %r0, 10;",
      [](uint32_t t) { return t < 3 ? 2 : 11u; });
  add(cases, "guarded_exit",
      "mov.u32 %r0, 7;" + storeResult() +
          "setp.lt.u32 %p1, %gid, 3; @%p1 exit; activemask.b32 %r0; popc.b32 %r0, %r0;",
      [](uint32_t t) { return t < 3 ? 7 : 29u; });
  add(cases, "scopes",
      "mov.u32 %r0, 1; { .reg .b32 %x; .reg .pred %p1; mov.u32 %x, 41; setp.gt.u32 %p1, %gid, 3; @%p1 bra "
      "SKIP; add.u32 %r0, %r0, %x; SKIP: } { .reg .b32 %x; mov.u32 %x, 100; add.u32 %r0, %r0, %x; SKIP: }",
      [](uint32_t t) { return t > 3 ? 101 : 142u; });

  // Shuffles: by the pseudo-code of the PTX ISA.
  auto shuffle = [](const std::string &mode, uint32_t lane, uint32_t b, uint32_t c) {
    const uint32_t bound = c & 31, segment = c >> 8 & 31;
    const uint32_t most = (lane & segment) | (bound & ~segment), least = lane & segment;
    int j = 0;
    bool p = false;
    if (mode == "up") {
      j = int(lane) - int(b);
      p = j >= int(most);
    } else if (mode == "down") {
      j = int(lane + b);
      p = j <= int(most);
    } else if (mode == "bfly") {
      j = int(lane ^ b);
      p = j <= int(most);
    } else {
      j = int(least | (b & ~segment));
      p = j <= int(most);
    }
    return std::pair(p ? uint32_t(j) : lane, p);
  };
  for (std::string mode : {"up", "down", "bfly", "idx"})
    for (auto [b, c] :
         {std::pair{1u, 31u}, {2u, 31u}, {5u, 31u}, {3u, 0x1c03u}, {16u, 0x100fu}, {4u, 0x1807u}}) {
      const uint32_t clamp = mode == "up" ? c & ~31u : c;
      add(cases, "shfl." + mode + "." + std::to_string(b) + "." + std::to_string(clamp),
          "mad.lo.u32 %r1, %gid, 11, 3; shfl.sync." + mode + ".b32 %r0|%p1, %r1, " + std::to_string(b) +
              ", " + std::to_string(clamp) + ", -1; selp.b32 %r2, 1000, 0, %p1; add.u32 %r0, %r0, %r2;",
          [=](uint32_t t) {
            auto [from, valid] = shuffle(mode, t, b, clamp);
            return from * 11 + 3 + (valid ? 1000 : 0);
          });
    }
  add(cases, "shfl.part",
      "mov.u32 %r0, 0; setp.ge.u32 %p1, %gid, 16; @%p1 bra OUT; add.u32 %r1, %gid, 50; shfl.sync.bfly.b32 "
      "%r0, %r1, 1, 31, 0xffff; OUT:",
      [](uint32_t t) { return t >= 16 ? 0 : (t ^ 1) + 50; });
  add(cases, "vote",
      "setp.lt.u32 %p1, %gid, 5; vote.sync.ballot.b32 %r0, %p1, -1; vote.sync.any.pred %p2, %p1, -1; "
      "vote.sync.all.pred %p3, %p1, -1; vote.sync.uni.pred %p4, !%p1, -1;"
      "selp.b32 %r1, 64, 0, %p2; selp.b32 %r2, 128, 0, %p3; selp.b32 %r3, 256, 0, %p4; add.u32 %r0, %r0, "
      "%r1; add.u32 %r0, %r0, %r2; add.u32 %r0, %r0, %r3;",
      [](uint32_t) { return 31 + 64u; });
  add(cases, "redux",
      "redux.sync.add.s32 %r0, %gid, -1; redux.sync.max.u32 %r1, %gid, -1; redux.sync.or.b32 %r2, %gid, -1; "
      "sub.s32 %r3, 5, %gid; redux.sync.min.s32 %r3, %r3, -1; mad.lo.u32 %r0, %r0, 100, %r1; add.u32 %r0, "
      "%r0, %r2; add.s32 %r0, %r0, %r3;",
      [](uint32_t) { return uint32_t(496 * 100 + 31 + 31 - 26); });

  const std::string shared = ".shared .align 16 .b8 buffer[1024];";
  // Each thread writes its word, all meet, each reads another warp's.
  add(
      cases, "bar.sync",
      "shl.b32 %r1, %gid, 2; mov.u32 %r2, buffer; add.u32 %r1, %r1, %r2; st.shared.b32 [%r1], %gid; bar.sync "
      "0; xor.b32 %r3, %gid, 37; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r2; ld.shared.b32 %r0, [%r3];",
      [](uint32_t t) { return t ^ 37; }, 64, 2, shared);
  // Producer and consumer with a named barrier: warp 0 writes and arrives, warp 1 syncs and reads.
  add(
      cases, "bar.arrive",
      "mov.u32 %r0, 1; and.b32 %r4, %gid, 31; shl.b32 %r1, %r4, 2; mov.u32 %r2, buffer; add.u32 %r1, %r1, "
      "%r2; setp.ge.u32 %p1, %gid, 32; @%p1 bra CONSUME; mul.lo.u32 %r3, %gid, 5; st.shared.b32 [%r1], %r3; "
      "bar.arrive 3, 64; bra DONE; CONSUME: bar.sync 3, 64; ld.shared.b32 %r0, [%r1]; DONE:",
      [](uint32_t t) { return t < 32 ? 1 : (t - 32) * 5; }, 64, 1, shared);
  add(
      cases, "bar.warp.sync",
      "shl.b32 %r1, %gid, 2; mov.u32 %r2, buffer; add.u32 %r1, %r1, %r2; st.shared.b32 [%r1], %gid; "
      "bar.warp.sync -1; xor.b32 %r3, %gid, 9; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r2; ld.shared.b32 "
      "%r0, [%r3];",
      [](uint32_t t) { return t ^ 9; }, 32, 1, shared);
}

} // namespace flashplus::emu::test
