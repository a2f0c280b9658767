// SPDX-License-Identifier: BSD-3-Clause
// Clusters of two CTAs: distributed shared memory, mbarriers of the other CTA, multicast copies.
#include "tests/emulator/cluster_text.h"

#include <cstring>

namespace flashplus::emu::test {
namespace {

void addPair(std::vector<Case> &cases, const std::string &name, const std::string &body,
             std::function<uint32_t(std::span<const uint32_t> input, uint32_t rank, uint32_t thread)> want) {
  Case c = pairCase("cluster." + name, body);
  c.expect = [want](std::span<const uint8_t> in, std::span<uint8_t> out) {
    std::vector<uint32_t> words(in.size() / 4);
    std::memcpy(words.data(), in.data(), words.size() * 4);
    for (uint32_t i = 0; i < 256; ++i) {
      const uint32_t v = want(words, i / 128, i % 128);
      std::memcpy(out.data() + i * 4, &v, 4);
    }
  };
  cases.push_back(std::move(c));
}

} // namespace

Case pairCase(const std::string &name, const std::string &body) {
  Case c;
  c.name = name;
  c.ptx = module(kPairSetUp + body, ".extern .shared .align 1024 .b8 tile[];");
  c.ptx.replace(c.ptx.find(".target sm_80"), 13, ".target sm_90a");
  c.ptx.replace(c.ptx.find(".param .u64 output)"), 19,
                std::string(".param .u64 output, .param .align 64 .b8 map[128]) ") + kPair);
  c.threads = 128;
  c.blocks = 2;
  c.least_chip = 90;
  c.map = sixteenRows();
  Random random(61);
  for (int i = 0; i < 2048; ++i)
    c.input.push_back(uint8_t(random.next()));
  c.output_bytes = 1024;
  c.dynamic_shared = kBarsAt + 64;
  return c;
}

void addClusterCases(std::vector<Case> &cases) {
  struct Form {
    const char *name;
    std::string body;
    uint32_t (*want)(uint32_t rank, uint32_t thread);
  };
  const std::string store = "mad.lo.u32 %r10, %r5, 1000, %r4;\n", out = "st.global.u32 [%rd3], %r11;\n";
  for (const Form &f : {
           Form{"read",
                store + "st.shared.u32 [%r3], %r10;\n" + kSync + "ld.shared::cluster.u32 %r11, [%r9];\n" +
                    kSync + out,
                [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{"write",
                store + kSync + "st.shared::cluster.u32 [%r9], %r10;\n" + kSync +
                    "ld.shared.u32 %r11, [%r3];\n" + out,
                [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{"generic",
                store + "st.shared.u32 [%r3], %r10;\n" + kSync +
                    "cvt.u64.u32 %rd5, %r3; cvta.shared.u64 %rd5, %rd5; mapa.u64 %rd5, %rd5, %r6; ld.u32 "
                    "%r11, [%rd5];"
                    "getctarank.u64 %r12, %rd5; mad.lo.u32 %r11, %r12, 7, %r11; "
                    "getctarank.shared::cluster.u32 %r12, "
                    "%r3; mad.lo.u32 %r11, %r12, 50000, %r11;\n" +
                    kSync + out,
                [](uint32_t rank, uint32_t t) { return (1 - rank) * 1007 + t + rank * 50000; }},
           Form{"atomics",
                "st.shared.u32 [%r3], %r4;\n" + kSync +
                    "atom.shared::cluster.add.u32 %r12, [%r9], 5; red.shared::cluster.add.u32 [%r9], 3;\n" +
                    kSync + "ld.shared.u32 %r11, [%r3];\n" + out,
                [](uint32_t, uint32_t t) { return t + 8; }},
           Form{"fenced_relaxed_arrival",
                store + "st.shared.u32 [%r3], %r10;\nfence.acq_rel.cluster;\n" + kRelaxed + kClusterWait +
                    "ld.shared::cluster.u32 %r11, [%r9];\n" + kSync + out,
                [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{
               "mbarrier_of_the_peer",
               "@%p1 mbarrier.init.shared::cta.b64 [%r2], 128;\n@%p1 fence.mbarrier_init.release.cluster;\n" +
                   store + kRelaxed + kClusterWait +
                   "st.shared::cluster.u32 [%r9], %r10;\n"
                   "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8];\n"
                   "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra "
                   "W;\n"
                   "ld.shared.u32 %r11, [%r3];\n" +
                   kSync + out,
               [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{"transactions_of_the_peer",
                "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n" + kSync +
                    "@%p1 mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r8], 48;\n"
                    "@%p1 mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r8], 48;\n"
                    "W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra W;\n"
                    "mov.u32 %r11, %r4;\n" +
                    kSync + out,
                [](uint32_t, uint32_t t) { return t; }},
       }) {
    addPair(cases, f.name, f.body,
            [want = f.want](std::span<const uint32_t>, uint32_t rank, uint32_t t) { return want(rank, t); });
  }

  auto tile = [](std::span<const uint32_t> in, uint32_t word,
                 bool swapped) { // of 2048 bytes: swizzled rows of 128
    uint32_t at = word * 4;
    at ^= (at / 128 % 8) * 16;
    return in[(at / 4 + (swapped ? 256 : 0)) % 512];
  };
  // Two rounds through one slot, as a kernel's ring would; the second comes from the other rows.
  const std::string body =
      kInit + kRelaxed + kClusterWait + multicast() + waitFull("0") + kRead + kEmpty + kWaitEmpty +
      "xor.b32 %r17, %r5, 1;\nshl.b32 %r17, %r17, 3;\n" + multicast("3", "%r17") + waitFull("1", "G") +
      "ld.shared.u32 %r14, [%r3];\nadd.u32 %r16, %r16, %r14;\n" + kSync + "st.global.u32 [%rd3], %r16;\n";
  addPair(cases, "multicast", body, [tile](std::span<const uint32_t> in, uint32_t, uint32_t t) {
    return tile(in, t, false) + tile(in, t + 384, false) + tile(in, t, true);
  });
  const std::string one = kInit + kRelaxed + kClusterWait +
                          "mov.u32 %r14, 7;\nsetp.ne.u32 %p4, %r5, 0;\n@%p4 bra OUT;\nmov.b16 %rs1, 1;\n"
                          "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;\n"
                          "@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
                          "multicast::cluster [%r1], [%rd1, {0, 8}], [%r2], %rs1;\n" +
                          waitFull("0") + "ld.shared.u32 %r14, [%r3];\nOUT: st.global.u32 [%rd3], %r14;\n";
  addPair(cases, "multicast_to_one", one, [tile](std::span<const uint32_t> in, uint32_t rank, uint32_t t) {
    return rank ? 7u : tile(in, t, true);
  });
}

} // namespace flashplus::emu::test
