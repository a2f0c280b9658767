// SPDX-License-Identifier: BSD-3-Clause
// Clusters: distributed shared memory, the cluster's barrier, mbarriers of other CTAs, multicast copies; what
// they compute, and the bugs that they invite, planted.
#include "tests/emulator/hopper_module.h"

#include <cstring>
#include <doctest/doctest.h>

using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

const char *const kPair = ".reqntid 128 .minnctapersm 1 .reqnctapercluster 2";

// %r1 tile, %r2 bars, %r3 this thread's word of the tile, %r4 thread, %r5 rank, %r6 the peer's rank, %r7 the
// peer's tile, %r8 its bars, %r9 this thread's word of its tile; %p1: the first thread; %rd1 the map, %rd3
// and %rd4 this thread's word of the output and the input.
const std::string kSetUp =
    "mov.u32 %r1, tile;\nmov.u32 %r2, bars;\nmov.b64 %rd1, map;\ncvta.param.u64 %rd1, %rd1;\n"
    "mul.wide.u32 %rd2, %gid, 4;\nadd.s64 %rd3, %rd2, %out;\nadd.s64 %rd4, %rd2, %in;\nmov.u32 %r4, %tid.x;\n"
    "shl.b32 %r3, %r4, 2;\nadd.u32 %r3, %r3, %r1;\nsetp.eq.u32 %p1, %r4, 0;\nmov.u32 %r5, %cluster_ctarank;\n"
    "xor.b32 %r6, %r5, 1;\nmapa.shared::cluster.u32 %r7, %r1, %r6;\nmapa.shared::cluster.u32 %r8, %r2, %r6;\n"
    "mapa.shared::cluster.u32 %r9, %r3, %r6;\n";
const std::string kArrive = "barrier.cluster.arrive.release.aligned;\n",
                  kRelaxed = "barrier.cluster.arrive.relaxed.aligned;\n",
                  kWait = "barrier.cluster.wait.acquire.aligned;\n", kSync = kArrive + kWait;

Case pairCase(const std::string &body, size_t output = 1024) {
  Case c = hopperCase(hopperModule(kSetUp + body, kPair), 4096, output, 16384);
  c.blocks = 2;
  return c;
}

std::vector<Options> everyMode() {
  std::vector<Options> all(6);
  all[1].async = AsyncMode::Eager;
  for (size_t i = 2; i < all.size(); ++i) {
    all[i].async = AsyncMode::Random;
    all[i].seed = i;
  }
  return all;
}

std::vector<uint32_t> words(const std::vector<uint8_t> &bytes) {
  std::vector<uint32_t> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), out.size() * 4);
  return out;
}

/// 16 rows of 64 elements; a box is 8 of them.
TensorMapContents sixteenRows() {
  TensorMapContents map;
  map.rank = 2;
  map.swizzle_bytes = 128;
  map.extent[0] = 64, map.extent[1] = 16;
  map.stride[0] = 128;
  map.box[0] = 64, map.box[1] = 8;
  return map;
}

} // namespace

TEST_CASE("a CTA finds its place in the cluster") {
  // 12 CTAs as clusters of (2, 3, 1) in a grid of (4, 3, 1).
  const std::string body =
      "mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank; mov.u32 %r3, %cluster_ctaid.x; mov.u32 "
      "%r4, "
      "%cluster_ctaid.y; mov.u32 %r5, %clusterid.x; mov.u32 %r6, %nclusterid.x; mov.u32 %r7, "
      "%cluster_nctaid.y;"
      "mov.u32 %r8, %ctaid.x; mov.u32 %r9, %ctaid.y; mad.lo.u32 %r9, %r9, 4, %r8; mul.wide.u32 %rd1, %r9, 28;"
      "add.s64 %rd1, %rd1, %out; st.global.u32 [%rd1], %r1; st.global.u32 [%rd1+4], %r2; st.global.u32 "
      "[%rd1+8], "
      "%r3; st.global.u32 [%rd1+12], %r4; st.global.u32 [%rd1+16], %r5; st.global.u32 [%rd1+20], %r6;"
      "st.global.u32 [%rd1+24], %r7;";
  const std::string ptx = hopperModule(body, ".reqnctapercluster 2, 3, 1");
  auto program = loadProgram(ptx, "test");
  REQUIRE(program);
  GlobalMemory memory;
  void *output = memory.allocate(12 * 28);
  std::vector<uint8_t> params(192);
  std::memcpy(params.data() + 8, &output, 8);
  LaunchConfig config;
  config.grid = {4, 3, 1};
  config.params = params;
  for (int threads : {1, 2}) {
    Options options;
    options.threads = threads;
    const LaunchResult result = launch(**program, memory, config, options);
    REQUIRE_MESSAGE(!result.fault, result.fault->text());
    for (uint32_t y = 0; y < 3; ++y)
      for (uint32_t x = 0; x < 4; ++x) {
        uint32_t got[7];
        std::memcpy(got, static_cast<uint8_t *>(output) + (y * 4 + x) * 28, 28);
        const uint32_t want[7] = {x % 2 + 2 * y, 6, x % 2, y, x / 2, 2, 3};
        CHECK(std::equal(got, got + 7, want));
      }
  }
  config.grid = {3, 3, 1};
  CHECK(launch(**program, memory, config, {}).fault->text().find("no multiple of clusters") !=
        std::string::npos);
  config.grid = {4, 3, 1};
  config.cluster = {4, 1, 1};
  CHECK(launch(**program, memory, config, {}).fault->text().find("the entry requires (2, 3, 1)") !=
        std::string::npos);
  // Without the directive the launch says it.
  auto plain =
      loadProgram(hopperModule("mov.u32 %r1, %cluster_nctarank; st.global.u32 [%out], %r1;", ""), "test");
  REQUIRE(plain);
  const LaunchResult result = launch(**plain, memory, config, {});
  REQUIRE(!result.fault);
  CHECK(*static_cast<uint32_t *>(output) == 4);
  config.cluster = {4, 3, 1};
  CHECK(launch(**plain, memory, config, {}).fault->text().find("at most 8") != std::string::npos);
}

TEST_CASE("CTAs read, write and add to each other's shared memory") {
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
           Form{"fenced relaxed arrival",
                store + "st.shared.u32 [%r3], %r10;\nfence.acq_rel.cluster;\n" + kRelaxed + kWait +
                    "ld.shared::cluster.u32 %r11, [%r9];\n" + kSync + out,
                [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{
               "mbarrier of the peer",
               "@%p1 mbarrier.init.shared::cta.b64 [%r2], 128;\n@%p1 fence.mbarrier_init.release.cluster;\n" +
                   store + kRelaxed + kWait +
                   "st.shared::cluster.u32 [%r9], %r10;\n"
                   "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8];\n"
                   "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra "
                   "W;\n"
                   "ld.shared.u32 %r11, [%r3];\n" +
                   kSync + out,
               [](uint32_t rank, uint32_t t) { return (1 - rank) * 1000 + t; }},
           Form{"transactions on the peer's mbarrier",
                "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n" + kSync +
                    "@%p1 mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r8], 48;\n"
                    "@%p1 mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r8], 48;\n"
                    "W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;\n@!%p2 bra W;\n"
                    "mov.u32 %r11, %r4;\n" +
                    kSync + out,
                [](uint32_t, uint32_t t) { return t; }},
       }) {
    const std::string name = f.name;
    INFO(name);
    for (const Options &options : everyMode()) {
      const TensorMapContents map = sixteenRows();
      const Ran ran = run(pairCase(f.body), options, &map);
      CHECK(ran.error == "");
      const std::vector<uint32_t> got = words(ran.output);
      std::vector<uint32_t> want;
      for (uint32_t i = 0; i < 256; ++i)
        want.push_back(f.want(i / 128, i % 128));
      CHECK(got == want);
    }
  }
}

namespace {

// Full and empty mbarriers, for arrivals of one producer and of the 128 consumers of both CTAs.
const std::string kInit =
    "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p1 mbarrier.init.shared::cta.b64 [%r2+8], 256;\n"
    "@%p1 fence.mbarrier_init.release.cluster;\n";
/// The first thread brings its half of the tile, 8 rows, to both CTAs.
std::string multicast(const std::string &mask = "3", const std::string &row = "%r13") {
  return "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 2048;\n"
         "shl.b32 %r12, %r5, 10;\nadd.u32 %r12, %r12, %r1;\nshl.b32 %r13, %r5, 3;\nmov.b16 %rs1, " +
         mask +
         ";\n@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes."
         "multicast::cluster [%r12], [%rd1, {0, " +
         row + "}], [%r2], %rs1;\n";
}
std::string waitFull(const std::string &parity, const std::string &label = "F") {
  return label + ": mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], " + parity + ";\n@!%p2 bra " +
         label + ";\n";
}
// Everyone has read: both producers hear of it.
const std::string kEmpty = "mbarrier.arrive.shared::cta.b64 _, [%r2+8];\n"
                           "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8+8];\n";
const std::string kWaitEmpty = "@!%p1 bra N;\nE: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 "
                               "%p3, [%r2+8], 0;\n@!%p3 bra E;\nN:\n";
const std::string kRead =
    "ld.shared.u32 %r14, [%r3];\nld.shared.u32 %r15, [%r3+1536];\nadd.u32 %r16, %r14, %r15;\n";

} // namespace

TEST_CASE("a multicast copy reaches every CTA of its mask and signals each one's mbarrier") {
  // Two rounds through one slot, as a kernel's ring would; the second comes from the other rows.
  const std::string body =
      kInit + kRelaxed + kWait + multicast() + waitFull("0") + kRead + kEmpty + kWaitEmpty +
      "xor.b32 %r17, %r5, 1;\nshl.b32 %r17, %r17, 3;\n" + multicast("3", "%r17") + waitFull("1", "G") +
      "ld.shared.u32 %r14, [%r3];\nadd.u32 %r16, %r16, %r14;\n" + kSync + "st.global.u32 [%rd3], %r16;\n";
  const Case c = pairCase(body);
  const TensorMapContents map = sixteenRows();
  const std::vector<uint32_t> in = words(c.input);
  auto tile = [&](uint32_t word, bool swapped) { // of 2048 bytes: swizzled rows of 128
    uint32_t at = word * 4;
    at ^= (at / 128 % 8) * 16;
    return in[(at / 4 + (swapped ? 256 : 0)) % 512];
  };
  for (const Options &options : everyMode()) {
    const Ran ran = run(c, options, &map);
    CHECK(ran.error == "");
    std::vector<uint32_t> want;
    for (uint32_t i = 0; i < 256; ++i)
      want.push_back(tile(i % 128, false) + tile(i % 128 + 384, false) + tile(i % 128, true));
    CHECK(words(ran.output) == want);
    // Bytes cross from memory once, however many CTAs they reach.
    CHECK(ran.statistics.global_read == 4 * 1024);
    CHECK(ran.statistics.shared_written == 8 * 1024);
  }
  // To one CTA of two.
  const std::string one = kInit + kRelaxed + kWait +
                          "setp.ne.u32 %p4, %r5, 0;\n@%p4 bra OUT;\nmov.b16 %rs1, 1;\n"
                          "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024;\n"
                          "@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
                          "multicast::cluster [%r1], [%rd1, {0, 8}], [%r2], %rs1;\n" +
                          waitFull("0") + "ld.shared.u32 %r14, [%r3];\nst.global.u32 [%rd3], %r14;\nOUT:\n";
  const Ran ran = run(pairCase(one), {}, &map);
  CHECK(ran.error == "");
  for (uint32_t i = 0; i < 128; ++i)
    CHECK(words(ran.output)[i] == tile(i, true));
}

TEST_CASE("every planted bug of clusters is reported, and its twin is clean") {
  struct Planted {
    const char *name;
    FaultKind kind;
    std::string body, says;
    std::string bug, fixed; ///< Take the place of "$" in the body.
  };
  const std::string store = "st.shared.u32 [%r3], %r4;\n", load = "ld.shared::cluster.u32 %r11, [%r9];\n";
  const std::string remote = "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8];\n";
  const std::string init = "@%p1 mbarrier.init.shared::cta.b64 [%r2], 128;\n";
  const std::string wait = waitFull("0");
  const std::vector<Planted> all = {
      {"the peer may not have started", FaultKind::Race, "$st.shared::cluster.u32 [%r9], %r4;\n" + kSync,
       "nothing to order its start before", "", kSync},
      {"the peer may have exited", FaultKind::Race, store + kSync + load + "$", "", "", kSync},
      {"a relaxed arrival orders nothing", FaultKind::Race, store + "$" + kWait + load + kSync, "", kRelaxed,
       kArrive},
      {"no wait after the arrival", FaultKind::Race, store + kArrive + "$" + load + kSync, "", "", kWait},
      {"reads what the peer still writes", FaultKind::Race,
       store + kSync + "st.shared.u32 [%r3], 5;\n$" + load + kSync, "", "bar.sync 0;\n", kSync},
      {"writes what the peer still reads", FaultKind::Race,
       store + kSync + load + "$st.shared.u32 [%r3], 5;\n" + kSync, "", "bar.sync 0;\n", kSync},
      {"arrives twice", FaultKind::Barrier, kArrive + "$" + kWait, "a second time", kArrive, ""},
      {"waits without arriving", FaultKind::Barrier, "$" + kWait, "without having arrived", "", kArrive},
      {"one CTA does not come", FaultKind::Deadlock,
       init + "bar.sync 0;\nsetp.eq.u32 %p4, %r5, $;\n@!%p4 bra S;\n" + wait + "S:\n" + kSync,
       "waits at the cluster's barrier", "1", "2"},
      {"half of a warp arrives", FaultKind::Divergence,
       "setp.lt.u32 %p4, %r4, $;\n@%p4 barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n", "",
       "16", "128"},
      {"an address of the peer in .shared::cta", FaultKind::OutOfBounds,
       store + kSync + "ld.shared$.u32 %r11, [%r9];\n" + kSync, ".shared::cta does not reach", "",
       "::cluster"},
      {"a CTA that is not there", FaultKind::OutOfBounds, "mapa.shared::cluster.u32 %r10, %r1, $;\n",
       "CTA 2 of a cluster of 2", "2", "1"},
      {"past the end of the peer's shared memory", FaultKind::OutOfBounds,
       kSync + "st.shared::cluster.u32 [%r9+$], 1;\n" + kSync, "outside memory", "17000", "15000"},
      {"the peer's memory, which nothing wrote", FaultKind::UninitialisedMemory, "$" + kSync + load + kSync,
       "", "", store},
      {"the peer's mbarrier, initialised without a fence", FaultKind::Race,
       init + "$" + kRelaxed + kWait + remote + wait + kSync, "initialisation nothing orders", "",
       "@%p1 fence.mbarrier_init.release.cluster;\n"},
      {"the peer's mbarrier, not initialised", FaultKind::Barrier, "$" + kSync + remote + wait + kSync,
       "no initialised mbarrier", "@%p1 mbarrier.init.shared::cta.b64 [%r2+8], 128;\n", init},
      {"one arrival too many at the peer's mbarrier", FaultKind::Barrier,
       "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n" + kSync +
           "@%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8], $;\n" + kSync,
       "2 arrivals at an mbarrier that waits for 1 more", "2", "1"},
      {"nobody arrives at one CTA's mbarrier", FaultKind::Deadlock,
       init + kSync + "setp.eq.u32 %p4, %r5, $;\n@!%p4 " + remote + wait + kSync, "128 of 128 arrivals", "1",
       "2"},
      {"the peer exits before an arrival", FaultKind::Race,
       init + kSync + "setp.eq.u32 %p4, %r5, 0;\n@%p4 " + remote + "$", "", "",
       "@%p4 bra D;\n" + wait + "D:\n"},
      {"a multicast to a CTA that is not there", FaultKind::Launch,
       kInit + kRelaxed + kWait + multicast("$") + wait + kSync, "the mask 7", "7", "3"},
      {"a multicast that leaves one CTA out", FaultKind::Deadlock,
       kInit + kRelaxed + kWait + multicast("$") + wait + kSync, "bytes to come", "1", "3"},
      {"expects only its own half", FaultKind::Deadlock,
       kInit + kRelaxed + kWait + "@%p1 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r2], $;\n" +
           multicast() + wait + kSync,
       "bytes to come", "16", "0"},
      {"a multicast before the peer's mbarriers are there", FaultKind::Race,
       kInit + "$" + multicast() + wait + kSync, "", "bar.sync 0;\n", kRelaxed + kWait},
      {"a multicast over what the peer still reads", FaultKind::Race,
       kInit + kRelaxed + kWait + multicast() + wait + kRead + "$" + kWaitEmpty + multicast() +
           waitFull("1", "G") + kSync,
       "with nothing to order the two", "mbarrier.arrive.shared::cta.b64 %rd9, [%r2+8], 2;\n", kEmpty},
      {"a multicast over what the peer stored", FaultKind::Race,
       kInit + store + "st.shared.u32 [%r3+1536], 1;\n$" + kSync + multicast() + wait + kSync,
       "without a fence.proxy.async", "", "fence.proxy.async.shared::cta;\n"},
      {"a multicast that the peer does not wait for", FaultKind::AsyncPending,
       kInit + kRelaxed + kWait + multicast() + kSync + "$" + kRead + kSync, "copied by", "", wait},
      {"exit with the peer's copy under way", FaultKind::AsyncPending,
       kInit + kRelaxed + kWait + multicast() + "$" + wait, "", "setp.eq.u32 %p4, %r5, 1;\n@%p4 ret;\n", ""},
  };
  const TensorMapContents map = sixteenRows();
  for (const Planted &p : all) {
    const std::string name = p.name;
    INFO(name);
    auto with = [&](const std::string &what) {
      std::string body = p.body;
      body.replace(body.find('$'), 1, what);
      return pairCase(body);
    };
    const Case bug = with(p.bug), fixed = with(p.fixed);
    for (Options options : everyMode()) {
      options.step_limit = 1000000;
      CHECK(run(fixed, options, &map).error == "");
      const Ran ran = run(bug, options, &map);
      CHECK_MESSAGE(ran.fault.has_value(), "not reported; " << ran.error);
      if (!ran.fault)
        continue;
      INFO(ran.fault->text());
      CHECK(ran.fault->where.line > lineOf(bug.ptx, "mapa.shared::cluster.u32 %r9"));
      if (options.async != AsyncMode::Late)
        continue; // in another order of turns the bug may show from another side
      CHECK(ran.fault->kind == p.kind);
      CHECK(ran.fault->text().find(p.says) != std::string::npos);
    }
  }
}
