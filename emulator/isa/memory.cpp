// SPDX-License-Identifier: BSD-3-Clause
// ld and st of all spaces, prefetches, fences.
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"
#include "emulator/isa/bulk_copy.h"

namespace flashplus::emu {
namespace {

/// Counts and, for a warp that addresses one space, where the bytes go.
void count(Warp &w, Space space, const uint64_t (&at)[kLanes], uint32_t mask, uint32_t bytes, bool store) {
  Statistics &s = w.cta().statistics();
  const uint64_t total = uint64_t(std::popcount(mask)) * bytes;
  if (space == Space::Shared || space == Space::SharedCluster) {
    (store ? s.shared_written : s.shared_read) += total;
    countBanks(w, at, mask, bytes);
  } else if (space == Space::Global || space == Space::Generic) {
    (store ? s.global_written : s.global_read) += total;
    (store ? s.global_sectors_written : s.global_sectors_read) += countSectors(at, mask, bytes);
  }
}

/// Extends what was loaded to the register: `mode` is the type.
uint64_t extendLoaded(uint64_t v, Type type) {
  const int unused = 64 - typeBits(type);
  return isSigned(type) ? uint64_t(int64_t(v << unused) >> unused) : v;
}

void runLoad(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes], out[8][kLanes];
  addresses(w, in, 0, at);
  const uint32_t bytes = in.lane_bytes, total = bytes * in.elements;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    const uint8_t *from = access(w, in.space, at[lane], total, total, lane, AccessKind::Read);
    if (!from)
      return;
    for (uint32_t e = 0; e < in.elements; ++e) {
      uint64_t v = 0;
      std::memcpy(&v, from + e * bytes, bytes);
      out[e][lane] = extendLoaded(v, Type(in.mode));
    }
  }
  for (int e = 0; e < in.elements; ++e)
    w.storeNarrow(in.dst(e), mask, out[e]);
  count(w, in.space, at, mask, total, false);
}

void runStore(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes], values[8][kLanes];
  addresses(w, in, 0, at);
  const uint32_t bytes = in.lane_bytes, total = bytes * in.elements;
  for (int e = 0; e < in.elements; ++e)
    w.widen(in.src(1 + e), values[e]);
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    uint8_t *to = access(w, in.space, at[lane], total, total, lane, AccessKind::Write);
    if (!to)
      return;
    for (uint32_t e = 0; e < in.elements; ++e)
      std::memcpy(to + e * bytes, &values[e][lane], bytes);
  }
  count(w, in.space, at, mask, total, true);
}

/// Everything between the name and the type that changes nothing here: ordering, scope and cache hints.
void takeHints(Builder &b, bool load) {
  (void)b.takeAny({"weak", "volatile", "relaxed", "acquire", "release"});
  (void)b.takeAny({"cta", "cluster", "gpu", "sys"});
  (void)load;
}
void takeCacheHints(Builder &b) {
  (void)b.takeAny({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  (void)b.take("nc");
  for (std::string_view hint : {"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first",
                                "L1::evict_last", "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B"})
    (void)b.take(hint);
}

template <bool Load> void decodeAccess(Builder &b) {
  takeHints(b, Load);
  const Space space = b.space();
  takeCacheHints(b);
  const int vector = b.takeAny({"v2", "v4", "v8"});
  const size_t n = vector < 0 ? 1 : size_t(2) << vector;
  const Type type = b.type();
  const uint32_t bytes = uint32_t(typeBits(type)) / 8;
  if (bytes == 0 || bytes > 8 || n * bytes > 32 || type == Type::F16x2 || type == Type::BF16x2)
    return b.fail(std::string(b.ast().opcode) + " of " + std::to_string(n) + " ." + typeName(type) +
                  " does not exist");
  if (!Load && (space == Space::Param || space == Space::Const))
    return b.fail(std::string("st: .") + spaceName(space) + " cannot be written");
  b.wantOperands(2);
  b.out.lane_bytes = uint8_t(bytes);
  b.out.elements = uint8_t(n);
  b.out.mode = uint8_t(type);
  if (Load) {
    b.dstVector(b.operand(0), n, type, true);
    b.address(1, space);
    b.out.run = runLoad;
  } else {
    b.address(0, space);
    b.srcVector(b.operand(1), n, type, true);
    b.out.run = runStore;
  }
  const bool shared = space == Space::Shared || space == Space::SharedCluster;
  b.out.op_class = space == Space::Param || space == Space::Const ? OpClass::ParamLoad
                   : space == Space::Local                        ? OpClass::LocalMemory
                   : shared ? (Load ? OpClass::SharedLoad : OpClass::SharedStore)
                            : (Load ? OpClass::GlobalLoad : OpClass::GlobalStore);
}

void runNothing(Warp &, const Instruction &, uint32_t) {}

void decodePrefetch(Builder &b) {
  if (b.take("tensormap"))
    return decodePrefetchMap(b);
  const Space space = b.space();
  b.takeOneOf({"L1", "L2", "L2::evict_last", "L2::evict_normal"});
  b.wantOperands(1);
  b.address(0, space);
  b.out.run = runNothing;
}

/// For the relaxed arrival at a cluster's barrier that may follow.
void runReleaseFence(Warp &w, const Instruction &, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if (mask >> lane & 1)
      w.cta().clocks().releaseFence(w.thread(lane));
}

// Fences order accesses to memory between threads of a CTA only together with something that both execute,
// and that is ordered here already; across CTAs nothing is checked.
void decodeMembar(Builder &b) {
  b.takeOneOf({"cta", "gl", "sys"});
  b.wantOperands(0);
  b.out.run = runNothing;
  b.out.op_class = OpClass::Barrier;
}

void decodeFence(Builder &b) {
  b.out.op_class = OpClass::Barrier;
  if (b.take("proxy")) {
    b.require("async");
    (void)b.takeAny({"shared::cta", "global", "shared::cluster"});
    b.wantOperands(0);
    b.out.run = runProxyFence;
    return;
  }
  if (b.take("mbarrier_init")) {
    b.require("release");
    b.require("cluster");
    b.wantOperands(0);
    b.out.run = runBarrierInitFence;
    return;
  }
  const int order = b.takeAny({"sc", "acq_rel", "acquire", "release"});
  const bool wide = b.takeOneOf({"cta", "cluster", "gpu", "sys"}) > 0;
  b.wantOperands(0);
  b.out.run = wide && order != 2 ? runReleaseFence : runNothing;
  b.out.op_class = OpClass::Barrier;
}

} // namespace

void addMemory(OpcodeTable &t) {
  t["ld"] = decodeAccess<true>;
  t["ldu"] = decodeAccess<true>;
  t["st"] = decodeAccess<false>;
  t["prefetch"] = decodePrefetch;
  t["membar"] = decodeMembar;
  t["fence"] = decodeFence;
}

} // namespace flashplus::emu
