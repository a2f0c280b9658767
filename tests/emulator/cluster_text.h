// SPDX-License-Identifier: BSD-3-Clause
// Text of kernels for a cluster of two CTAs, and the module around it: sm_90a, shared memory `tile`,
// mbarriers behind it, a tensor map.
#pragma once

#include "tests/emulator/cases.h"

namespace flashplus::emu::test {

inline constexpr uint32_t kBarsAt = 16384; ///< Behind the start of the tile.
inline const char *const kPair = ".reqntid 128 .minnctapersm 1 .reqnctapercluster 2";

// %r1 tile, %r2 mbarriers, %r3 this thread's word of the tile, %r4 thread, %r5 rank, %r6 the peer's rank, %r7
// the peer's tile, %r8 its bars, %r9 this thread's word of its tile; %p1: the first thread; %rd1 the map,
// %rd3 and %rd4 this thread's word of the output and the input.
inline const std::string kPairSetUp =
    "mov.u32 %r1, tile;\nadd.u32 %r2, %r1, 16384;\nmov.b64 %rd1, map;\ncvta.param.u64 %rd1, %rd1;\n"
    "mul.wide.u32 %rd2, %gid, 4;\nadd.s64 %rd3, %rd2, %out;\nadd.s64 %rd4, %rd2, %in;\nmov.u32 %r4, %tid.x;\n"
    "shl.b32 %r3, %r4, 2;\nadd.u32 %r3, %r3, %r1;\nsetp.eq.u32 %p1, %r4, 0;\nmov.u32 %r5, %cluster_ctarank;\n"
    "xor.b32 %r6, %r5, 1;\nmapa.shared::cluster.u32 %r7, %r1, %r6;\nmapa.shared::cluster.u32 %r8, %r2, %r6;\n"
    "mapa.shared::cluster.u32 %r9, %r3, %r6;\n";
inline const std::string kArrive = "barrier.cluster.arrive.release.aligned;\n",
                         kRelaxed = "barrier.cluster.arrive.relaxed.aligned;\n",
                         kClusterWait = "barrier.cluster.wait.acquire.aligned;\n",
                         kSync = kArrive + kClusterWait;

/// Both CTAs of 128 threads run `body`, each thread with its place in the output.
Case pairCase(const std::string &name, const std::string &body);

/// 16 rows of 64 elements; a box is 8 of them.
inline TensorMapContents sixteenRows() {
  TensorMapContents map;
  map.rank = 2;
  map.swizzle_bytes = 128;
  map.extent[0] = 64, map.extent[1] = 16;
  map.stride[0] = 128;
  map.box[0] = 64, map.box[1] = 8;
  return map;
}

// Full and empty mbarriers, for arrivals of one producer and of the 128 consumers of both CTAs.
inline const std::string kInit =
    "@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;\n@%p1 mbarrier.init.shared::cta.b64 [%r2+8], 256;\n"
    "@%p1 fence.mbarrier_init.release.cluster;\n";
/// The first thread brings its half of the tile, 8 rows, to both CTAs.
inline std::string multicast(const std::string &mask = "3", const std::string &row = "%r13") {
  return "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 2048;\n"
         "shl.b32 %r12, %r5, 10;\nadd.u32 %r12, %r12, %r1;\nshl.b32 %r13, %r5, 3;\nmov.b16 %rs1, " +
         mask +
         ";\n@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes."
         "multicast::cluster [%r12], [%rd1, {0, " +
         row + "}], [%r2], %rs1;\n";
}
inline std::string waitFull(const std::string &parity, const std::string &label = "F") {
  return label + ": mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], " + parity + ";\n@!%p2 bra " +
         label + ";\n";
}
// Everyone has read: both producers hear of it.
inline const std::string kEmpty = "mbarrier.arrive.shared::cta.b64 _, [%r2+8];\n"
                                  "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r8+8];\n";
inline const std::string kWaitEmpty =
    "@!%p1 bra N;\nE: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 "
    "%p3, [%r2+8], 0;\n@!%p3 bra E;\nN:\n";
inline const std::string kRead =
    "ld.shared.u32 %r14, [%r3];\nld.shared.u32 %r15, [%r3+1536];\nadd.u32 %r16, %r14, %r15;\n";

} // namespace flashplus::emu::test
