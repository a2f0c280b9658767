// SPDX-License-Identifier: BSD-3-Clause
// Clusters: barrier.cluster, mapa, getctarank, and dependent launches.
#include "emulator/core/cluster.h"
#include "emulator/core/windows.h"
#include "emulator/isa/builder.h"

namespace flashplus::emu {
namespace {

void runArrive(Warp &w, const Instruction &in, uint32_t mask) {
  w.cta().cluster().arrive(w, mask, /*relaxed=*/in.mode != 0);
}
void runWait(Warp &w, const Instruction &, uint32_t mask) { (void)w.cta().cluster().wait(w, mask); }

/// The address of the same place in CTA `rank`.
void runMapa(Warp &w, const Instruction &in, uint32_t mask) {
  const uint64_t window = in.space == Space::Generic ? windowOf(Space::Shared) : 0;
  uint64_t at[kLanes];
  w.widen(in.src(0), at);
  const uint32_t *rank = w.lanes<uint32_t>(in.src(1));
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (window && spaceOfGeneric(at[lane]) != Space::Shared)
      return w.fault(FaultKind::OutOfBounds, "a generic address that is not in shared memory", int(lane),
                     at[lane]);
    if (rank[lane] >= uint32_t(w.cta().cluster().size()))
      return w.fault(FaultKind::OutOfBounds,
                     "CTA " + std::to_string(rank[lane]) + " of a cluster of " +
                         std::to_string(w.cta().cluster().size()),
                     int(lane), at[lane], Space::SharedCluster);
    at[lane] = window + clusterAddress(at[lane], rank[lane]);
  }
  w.storeNarrow(in.dst(), mask, at);
}

void runRank(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes], out[kLanes] = {};
  w.widen(in.src(0), at);
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (in.space == Space::Generic) {
      if (spaceOfGeneric(at[lane]) != Space::Shared)
        return w.fault(FaultKind::OutOfBounds, "a generic address that is not in shared memory", int(lane),
                       at[lane]);
      at[lane] -= windowOf(Space::Shared);
    }
    const uint64_t rank = at[lane] >> kRankShift;
    out[lane] = rank ? rank - 1 : uint64_t(w.cta().rank());
  }
  w.storeNarrow(in.dst(), mask, out);
}

template <bool Mapa> void decodeAddress(Builder &b) {
  const Space space = b.space();
  if (space != Space::Generic && space != Space::SharedCluster)
    return b.fail(std::string(b.ast().opcode) + ": the space is .shared::cluster or none");
  const Type type = b.takeOneOf({"u32", "u64"}) ? Type::U64 : Type::U32;
  if (space == Space::Generic && type == Type::U32)
    return b.fail(std::string(b.ast().opcode) + ": a generic address is .u64");
  b.wantOperands(Mapa ? 3 : 2);
  b.dst(0, Mapa ? type : Type::U32);
  b.src(1, type);
  if (Mapa)
    b.src(2, Type::U32);
  b.out.space = space;
  b.out.run = Mapa ? runMapa : runRank;
  b.out.op_class = OpClass::Integer;
}

void runNothing(Warp &, const Instruction &, uint32_t) {}

// Launches run one after the other, so that what a dependent one waits for is done. Whether it waits is
// checked.
void runGridWait(Warp &w, const Instruction &, uint32_t mask) { w.grid_waited |= mask; }

void decodeGridDependency(Builder &b) {
  const bool waits = b.takeOneOf({"launch_dependents", "wait"}) == 1;
  b.wantOperands(0);
  b.out.run = waits ? runGridWait : runNothing;
  b.out.op_class = OpClass::Control;
}

} // namespace

void decodeClusterBarrier(Builder &b) {
  const bool arrives = b.takeOneOf({"arrive", "wait"}) == 0;
  if (arrives)
    b.out.mode = b.takeAny({"release", "relaxed"}) == 1;
  else
    (void)b.take("acquire");
  b.out.aligned = b.take("aligned");
  b.wantOperands(0);
  b.out.run = arrives ? runArrive : runWait;
  b.out.op_class = OpClass::Barrier;
}

void addCluster(OpcodeTable &t) {
  t["mapa"] = decodeAddress<true>;
  t["getctarank"] = decodeAddress<false>;
  t["griddepcontrol"] = decodeGridDependency;
}

} // namespace flashplus::emu
