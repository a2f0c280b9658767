// SPDX-License-Identifier: BSD-3-Clause
// bar, barrier and bar.warp.sync.
#include "emulator/core/cta.h"
#include "emulator/isa/builder.h"

namespace flashplus::emu {
namespace {

enum : uint8_t { kWaits = 1, kCounted = 2 };

void runBarrier(Warp &w, const Instruction &in, uint32_t mask) {
  const auto lane = uint32_t(std::countr_zero(mask));
  const uint32_t *id = w.lanes<uint32_t>(in.src(0));
  const uint32_t *threads = in.mode & kCounted ? w.lanes<uint32_t>(in.src(1)) : nullptr;
  for (uint32_t l = 0; l < kLanes; ++l)
    if ((mask >> l & 1) && (id[l] != id[lane] || (threads && threads[l] != threads[lane])))
      return w.fault(FaultKind::Barrier, "lanes name different barriers or counts", int(l));
  if (threads && threads[lane] == 0)
    return w.fault(FaultKind::Barrier, "a barrier for 0 threads", int(lane));
  w.cta().arrive(w, id[lane], threads ? threads[lane] : 0, in.mode & kWaits);
}

void decodeBarrierOperands(Builder &b, bool waits) {
  b.wantOperands(waits ? 1 : 2, 2);
  b.src(0, Type::U32);
  b.out.mode = waits ? kWaits : 0;
  if (b.count() == 2) {
    b.src(1, Type::U32);
    b.out.mode |= kCounted;
  }
  b.out.run = runBarrier;
  b.out.op_class = OpClass::Barrier;
  // A barrier counts warps, so one that part of a warp reaches is no barrier, .aligned or not.
  b.out.aligned = true;
}

void runWarpSync(Warp &w, const Instruction &in, uint32_t mask) {
  const uint32_t *members = w.lanes<uint32_t>(in.src(0));
  Released released;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!(members[lane] >> lane & 1))
      return w.fault(FaultKind::Divergence, "the lane executes it but is not in its member mask", int(lane));
    if (const uint32_t missing = members[lane] & w.live() & ~mask)
      return w.fault(FaultKind::Divergence,
                     "lane " + std::to_string(std::countr_zero(missing)) +
                         " is in the member mask but does not execute it together with the others",
                     int(lane));
    w.cta().clocks().release(w.thread(lane), released);
  }
  w.cta().clocks().acquire(w.thread(0), mask, released.take(), /*merge=*/false);
}

void decodeBar(Builder &b) {
  if (b.take("warp")) {
    b.require("sync");
    b.wantOperands(1);
    b.src(0, Type::B32);
    b.out.run = runWarpSync;
    b.out.op_class = OpClass::Barrier;
    return;
  }
  (void)b.take("cta");
  decodeBarrierOperands(b, b.takeOneOf({"sync", "arrive"}) == 0);
}

void decodeBarrier(Builder &b) {
  if (b.take("cluster"))
    return decodeClusterBarrier(b);
  (void)b.take("cta");
  const bool waits = b.takeOneOf({"sync", "arrive"}) == 0;
  (void)b.take("aligned");
  decodeBarrierOperands(b, waits);
}

} // namespace

void addBarrier(OpcodeTable &t) {
  t["bar"] = decodeBar;
  t["barrier"] = decodeBarrier;
}

} // namespace flashplus::emu
