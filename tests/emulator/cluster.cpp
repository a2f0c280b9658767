// SPDX-License-Identifier: BSD-3-Clause
// Clusters: distributed shared memory, the cluster's barrier, mbarriers of other CTAs, multicast copies; what
// they compute, and the bugs that they invite, planted.
#include "tests/emulator/cluster_text.h"
#include "tests/emulator/hopper_module.h"

#include <cstring>
#include <doctest/doctest.h>

using namespace flashplus::emu;
using namespace flashplus::emu::test;

namespace {

std::vector<Options> everyMode() {
  std::vector<Options> all(6);
  all[1].async = AsyncMode::Eager;
  for (size_t i = 2; i < all.size(); ++i) {
    all[i].async = AsyncMode::Random;
    all[i].seed = i;
  }
  return all;
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
  config.cluster = {1u << 31, 4, 1u << 31};
  CHECK(launch(**plain, memory, config, {}).fault.has_value());
  config.cluster = {4, 3, 1};
  CHECK(launch(**plain, memory, config, {}).fault->text().find("at most 8") != std::string::npos);
}

TEST_CASE("bytes of a multicast cross from memory once, however many CTAs they reach") {
  const Case c = pairCase("multicast", kInit + kRelaxed + kClusterWait + multicast() + waitFull("0") + kSync);
  const Ran ran = run(c);
  CHECK(ran.error == "");
  CHECK(ran.statistics.global_read == 2 * 1024);
  CHECK(ran.statistics.shared_written == 4 * 1024);
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
      {"a relaxed arrival orders nothing", FaultKind::Race, store + "$" + kClusterWait + load + kSync, "",
       kRelaxed, kArrive},
      {"no wait after the arrival", FaultKind::Race, store + kArrive + "$" + load + kSync, "", "",
       kClusterWait},
      {"reads what the peer still writes", FaultKind::Race,
       store + kSync + "st.shared.u32 [%r3], 5;\n$" + load + kSync, "", "bar.sync 0;\n", kSync},
      {"writes what the peer still reads", FaultKind::Race,
       store + kSync + load + "$st.shared.u32 [%r3], 5;\n" + kSync, "", "bar.sync 0;\n", kSync},
      {"arrives twice", FaultKind::Barrier, kArrive + "$" + kClusterWait, "a second time", kArrive, ""},
      {"waits without arriving", FaultKind::Barrier, "$" + kClusterWait, "without having arrived", "",
       kArrive},
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
       init + "$" + kRelaxed + kClusterWait + remote + wait + kSync, "initialisation nothing orders", "",
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
       kInit + kRelaxed + kClusterWait + multicast("$") + wait + kSync, "the mask 7", "7", "3"},
      {"a multicast that leaves one CTA out", FaultKind::Deadlock,
       kInit + kRelaxed + kClusterWait + multicast("$") + wait + kSync, "bytes to come", "1", "3"},
      {"expects only its own half", FaultKind::Deadlock,
       kInit + kRelaxed + kClusterWait + "@%p1 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r2], $;\n" +
           multicast() + wait + kSync,
       "bytes to come", "16", "0"},
      {"a multicast before the peer's mbarriers are there", FaultKind::Race,
       kInit + "$" + multicast() + wait + kSync, "", "bar.sync 0;\n", kRelaxed + kClusterWait},
      {"a multicast over what the peer still reads", FaultKind::Race,
       kInit + kRelaxed + kClusterWait + multicast() + wait + kRead + "$" + kWaitEmpty + multicast() +
           waitFull("1", "G") + kSync,
       "with nothing to order the two", "mbarrier.arrive.shared::cta.b64 %rd9, [%r2+8], 2;\n", kEmpty},
      {"a multicast over what the peer stored", FaultKind::Race,
       kInit + store + "st.shared.u32 [%r3+1536], 1;\n$" + kSync + multicast() + wait + kSync,
       "without a fence.proxy.async", "", "fence.proxy.async.shared::cta;\n"},
      {"a multicast that the peer does not wait for", FaultKind::AsyncPending,
       kInit + kRelaxed + kClusterWait + multicast() + kSync + "$" + kRead + kSync, "copied by", "", wait},
      {"exit with the peer's copy under way", FaultKind::AsyncPending,
       kInit + kRelaxed + kClusterWait + multicast() + "$" + wait, "",
       "setp.eq.u32 %p4, %r5, 1;\n@%p4 ret;\n", ""},
  };
  for (const Planted &p : all) {
    const std::string name = p.name;
    INFO(name);
    auto with = [&](const std::string &what) {
      std::string body = p.body;
      body.replace(body.find('$'), 1, what);
      return pairCase(p.name, body);
    };
    const Case bug = with(p.bug), fixed = with(p.fixed);
    for (Options options : everyMode()) {
      options.step_limit = 1000000;
      CHECK(run(fixed, options).error == "");
      const Ran ran = run(bug, options);
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
