// SPDX-License-Identifier: BSD-3-Clause
// mbarrier objects, proxy fences, setmaxnreg.
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"

namespace flashplus::emu {
namespace {

struct Object {
  Cta *cta = nullptr; ///< That it lies in; null after a fault.
  int index = -1;
  Mbarrier &get() const { return cta->mbarriers[size_t(index)]; }
};

/// The object at an address, for one lane.
Object objectOf(Warp &w, Space space, uint64_t address, uint32_t lane) {
  if (address % 8) {
    w.fault(FaultKind::Misaligned, "an mbarrier lies at a multiple of 8", int(lane), address, Space::Shared);
    return {};
  }
  const SharedPlace place = sharedPlace(w, space, address, 8, lane, "uses an mbarrier of");
  if (!place.cta)
    return {};
  const int index = place.cta->mbarrierAt(place.offset);
  if (index < 0) {
    w.fault(FaultKind::Barrier, "there is no initialised mbarrier", int(lane), address, space);
    return {};
  }
  if (!place.cta->seesBarrier(w.thread(lane), index)) {
    const Mbarrier &b = place.cta->mbarriers[size_t(index)];
    w.fault(FaultKind::Race, "uses an mbarrier whose initialisation nothing orders before", int(lane),
            address, space, w.cta().party("initialised", b.init_thread, b.init_pc));
    return {};
  }
  return {place.cta, index};
}

void runInit(Warp &w, const Instruction &in, uint32_t mask) {
  Cta &cta = w.cta();
  uint64_t at[kLanes];
  addresses(w, in, 0, at);
  const uint32_t *count = w.lanes<uint32_t>(in.src(1));
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    if (!access(w, Space::Shared, at[lane], 8, 8, lane, AccessKind::Write))
      return;
    const uint32_t offset = uint32_t(at[lane] - kSharedBase);
    if (count[lane] == 0 || count[lane] >= 1u << 20)
      return w.fault(FaultKind::Barrier,
                     "an mbarrier for " + std::to_string(count[lane]) + " arrivals; 1 to 1048575 are allowed",
                     int(lane), at[lane], Space::Shared);
    if (cta.mbarrierAt(offset) >= 0)
      return w.fault(FaultKind::Barrier, "the mbarrier is initialised a second time", int(lane), at[lane],
                     Space::Shared);
    if (cta.mbarriers.size() >= Clocks::kMaxBarriers)
      return w.fault(FaultKind::Barrier,
                     "more than " + std::to_string(Clocks::kMaxBarriers) + " mbarriers are not modelled",
                     int(lane));
    Mbarrier b;
    b.offset = offset;
    b.expected = b.pending = count[lane];
    b.valid = true;
    b.init_thread = w.thread(lane);
    b.init_clock = cta.clocks().own(w.thread(lane));
    b.init_pc = w.pc();
    cta.mbarriers.push_back(std::move(b));
  }
}

void runInvalidate(Warp &w, const Instruction &in, uint32_t mask) {
  uint64_t at[kLanes];
  addresses(w, in, 0, at);
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if (mask >> lane & 1) {
      const Object object = objectOf(w, in.space, at[lane], lane);
      if (!object.cta)
        return;
      object.get().valid = false;
    }
}

enum : uint8_t { kArrives = 1, kExpects = 2, kHasCount = 4, kCompletes = 8 };

void runArrive(Warp &w, const Instruction &in, uint32_t mask) {
  Cta &cta = w.cta();
  uint64_t at[kLanes], state[kLanes] = {};
  addresses(w, in, 0, at);
  const uint32_t *bytes = in.mode & (kExpects | kCompletes) ? w.lanes<uint32_t>(in.src(1)) : nullptr;
  const uint32_t *count = in.mode & kHasCount ? w.lanes<uint32_t>(in.src(1)) : nullptr;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    const Object object = objectOf(w, in.space, at[lane], lane);
    if (!object.cta)
      return;
    Mbarrier &b = object.get();
    if (bytes) {
      b.transactions += in.mode & kCompletes ? -int64_t(bytes[lane]) : int64_t(bytes[lane]);
      if (b.transactions >= 1 << 20)
        return w.fault(FaultKind::Barrier,
                       "the mbarrier expects " + std::to_string(b.transactions) +
                           " bytes; at most 1048575 are allowed",
                       int(lane), at[lane], Space::Shared);
    }
    state[lane] = b.phases;
    if (in.mode & kArrives) {
      const uint32_t n = count ? count[lane] : 1;
      if (n == 0 || n > b.pending)
        return w.fault(FaultKind::Barrier,
                       std::to_string(n) + " arrivals at an mbarrier that waits for " +
                           std::to_string(b.pending) + " more in this phase",
                       int(lane), at[lane], Space::Shared);
      b.pending -= n;
      cta.clocks().release(w.thread(lane), b.released);
    }
    object.cta->settle(object.index);
  }
  if (in.destinations)
    w.store<uint64_t>(in.dst(), mask, state);
}

/// {try,test}_wait: true when the phase that the parity (or state) names is complete.
void runWait(Warp &w, const Instruction &in, uint32_t mask) {
  Cta &cta = w.cta();
  uint64_t at[kLanes], which[kLanes];
  addresses(w, in, 0, at);
  w.widen(in.src(1), which);
  const bool parity = in.mode & 1, may_block = in.mode & 2;
  uint32_t done = 0;
  int waits_for = -1;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1))
      continue;
    const Object object = objectOf(w, in.space, at[lane], lane);
    if (!object.cta)
      return;
    const Mbarrier &b = object.get();
    if (parity && which[lane] > 1)
      return w.fault(FaultKind::Barrier,
                     "a phase parity of " + std::to_string(which[lane]) + "; it must be 0 or 1", int(lane));
    const bool complete = parity ? (b.phases & 1) != which[lane] : b.phases > which[lane];
    if (complete) {
      done |= 1u << lane;
      if (b.completed) // none: a wait for the phase before the first
        cta.clocks().acquire(w.thread(0), 1u << lane, b.completed, /*merge=*/true);
    } else {
      waits_for = object.index;
    }
  }
  if (done == 0 && !w.takeTimeout()) {
    if (may_block)
      return w.block(waits_for);
    w.yield();
  }
  w.setPredicate(in.dst(), mask, done);
}

void decodeMbarrier(Builder &b) {
  const int op =
      b.takeOneOf({"init", "inval", "arrive", "expect_tx", "try_wait", "test_wait", "complete_tx"});
  b.out.op_class = OpClass::Barrier;
  const bool waits = op == 4 || op == 5, counts = op == 3 || op == 6;
  bool expects = op == 3;
  if (op == 2)
    expects = b.take("expect_tx");
  if (waits)
    b.out.mode = uint8_t(b.take("parity") ? 1 : 0) | uint8_t(op == 4 ? 2 : 0);
  if (op >= 2) {
    (void)b.takeAny({"release", "acquire", "relaxed"});
    (void)b.takeAny({"cta", "cluster"});
  }
  const Space space = b.space();
  const bool remote = space == Space::SharedCluster;
  if (space != Space::Shared && !(remote && (op == 2 || counts)))
    return b.fail(
        "mbarrier is modelled for .shared::cta, its arrivals and transactions for .shared::cluster too");
  b.require("b64");
  size_t first = 0;
  switch (op) {
  case 0:
    b.wantOperands(2);
    b.address(0, Space::Shared);
    b.src(1, Type::U32);
    b.out.run = runInit;
    return;
  case 1:
    b.wantOperands(1);
    b.address(0, Space::Shared);
    b.out.run = runInvalidate;
    return;
  case 2:
  case 3:
  case 6:
    if (op == 2) {
      b.dst(0, Type::B64);
      first = 1;
      if (remote && !b.sink)
        return b.fail("mbarrier.arrive: .shared::cluster returns no state; the destination must be _");
    }
    b.wantOperands(first + 1 + (expects || counts ? 1 : 0), first + 2);
    b.address(first, space);
    b.out.mode =
        uint8_t(op == 2 ? kArrives : 0) | uint8_t(expects ? kExpects : 0) | uint8_t(op == 6 ? kCompletes : 0);
    if (b.count() == first + 2) {
      b.src(first + 1, Type::U32);
      b.out.mode |= expects || counts ? 0 : kHasCount;
    }
    b.out.run = runArrive;
    return;
  default:
    b.wantOperands(3, 4); // a fourth: the hint for how long to suspend
    b.predDst(0);
    b.address(1, Space::Shared);
    b.src(2, b.out.mode & 1 ? Type::U32 : Type::B64);
    if (b.count() == 4)
      b.src(3, Type::U32);
    b.out.run = runWait;
  }
}

// --- setmaxnreg
// ----------------------------------------------------------------------------------------------------

void runSetMaxRegisters(Warp &w, const Instruction &in, uint32_t) {
  Cta &cta = w.cta();
  const Program &p = w.program();
  // ptxas ignores it unless it can tell the register count at the entry.
  if (!p.max_registers && !(p.min_ctas && (p.max_threads[0] || p.required_threads[0])))
    return w.fault(FaultKind::Launch,
                   "setmaxnreg has no effect without .maxnreg, or .minnctapersm with .maxntid or .reqntid",
                   -1);
  const int wanted = int(in.immediate);
  const bool increase = in.mode;
  if (increase ? wanted < w.registers : wanted > w.registers)
    return w.fault(FaultKind::Launch,
                   std::string(increase ? "an increase" : "a decrease") + " to " + std::to_string(wanted) +
                       " registers from " + std::to_string(w.registers),
                   -1);
  if (increase && cta.registersInUse() + (wanted - w.registers) * int(kLanes) > p.registersOfCta())
    return w.block(LaneGroup::kWantsRegisters);
  w.registers = wanted;
  cta.event();
  if (!increase)
    cta.wakeAll(LaneGroup::kWantsRegisters);
}

void decodeSetMaxRegisters(Builder &b) {
  b.out.mode = uint8_t(b.takeOneOf({"dec", "inc"}));
  b.require("sync");
  b.require("aligned");
  b.require("u32");
  b.wantOperands(1);
  b.out.immediate = b.constant(0, 24, 256);
  if (b.out.immediate % 8)
    return b.fail("setmaxnreg: the count must be a multiple of 8");
  b.out.run = runSetMaxRegisters;
  b.out.aligned = true;
  b.out.op_class = OpClass::Other;
}

} // namespace

void runProxyFence(Warp &w, const Instruction &, uint32_t mask) {
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if (mask >> lane & 1) {
      w.cta().clocks().proxyFence(w.thread(lane));
      for (Mbarrier &b : w.cta().mbarriers)
        b.fenced |= b.init_thread == w.thread(lane);
    }
}

void runBarrierInitFence(Warp &w, const Instruction &, uint32_t mask) {
  for (Mbarrier &b : w.cta().mbarriers)
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      if ((mask >> lane & 1) && b.init_thread == w.thread(lane))
        b.fenced = b.init_fenced = true;
}

void addMbarrier(OpcodeTable &t) {
  t["mbarrier"] = decodeMbarrier;
  t["setmaxnreg"] = decodeSetMaxRegisters;
}

} // namespace flashplus::emu
