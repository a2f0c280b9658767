// SPDX-License-Identifier: BSD-3-Clause
#include "emulator/isa/access.h"

#include "emulator/core/cluster.h"
#include "emulator/core/windows.h"

#include <algorithm>

namespace flashplus::emu {
namespace {

uint8_t *outOfBounds(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t lane, AccessKind kind,
                     const std::string &why) {
  w.fault(FaultKind::OutOfBounds,
          std::string(kind == AccessKind::Read ? "reads " : "writes ") + std::to_string(bytes) +
              " bytes outside memory; " + why,
          int(lane), address, space);
  return nullptr;
}

uint8_t *unwritten(Warp &w, Space space, uint64_t address, uint32_t lane) {
  w.fault(FaultKind::UninitialisedMemory,
          std::string("reads ") + spaceName(space) + " memory that nothing has written", int(lane), address,
          space);
  return nullptr;
}

bool allWritten(const uint8_t *shadow, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; ++i)
    if (!shadow[i])
      return false;
  return true;
}

uint8_t *globalAccess(Warp &w, uint64_t address, uint32_t bytes, uint32_t lane, AccessKind kind) {
  if (!checkGridBefore(w, lane, address))
    return nullptr;
  const GlobalMemory::Allocation *a = w.last_allocation;
  if (!a || address < a->base || address - a->base > a->size || bytes > a->size - (address - a->base)) {
    a = w.cta().memory().find(address, bytes);
    if (!a)
      return outOfBounds(w, Space::Global, address, bytes, lane, kind, w.cta().memory().describe(address));
    w.last_allocation = a;
  }
  uint8_t *shadow = a->shadow(address);
  if (kind != AccessKind::Write && !allWritten(shadow, bytes))
    return unwritten(w, Space::Global, address, lane);
  if (kind == AccessKind::Write) // an atomic finds everything written; other CTAs may be at it
    std::memset(shadow, 1, bytes);
  return a->data(address);
}

uint8_t *sharedAccess(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t lane,
                      AccessKind kind) {
  const SharedPlace place =
      sharedPlace(w, space, address, bytes, lane, kind == AccessKind::Read ? "reads" : "writes");
  if (!place.cta)
    return nullptr;
  SharedMemory &shared = place.cta->shared();
  const Accessor who{w.thread(lane), w.pc()};
  SharedProblem problem;
  const bool atomic = kind == AccessKind::Atomic;
  if ((kind == AccessKind::Read && !shared.onRead(place.offset, bytes, who, problem)) ||
      (kind != AccessKind::Read && !shared.onWrite(place.offset, bytes, who, atomic, problem))) {
    w.fault(problem, int(lane));
    return nullptr;
  }
  return shared.data(place.offset);
}

} // namespace

SharedPlace sharedPlace(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t lane,
                        const char *what, bool copies) {
  Cta *cta = &w.cta();
  const uint64_t rank = address >> kRankShift; // plus one; 0: the CTA's own
  auto refuse = [&](const std::string &why) {
    w.fault(FaultKind::OutOfBounds,
            std::string(what) + " " + std::to_string(bytes) + " bytes outside memory; " + why, int(lane),
            address, space);
    return SharedPlace{};
  };
  if (rank) {
    if (rank > uint64_t(cta->cluster().size()))
      return refuse("the CTA has " + std::to_string(cta->shared().bytes()) + " bytes from " +
                    std::to_string(kSharedBase));
    cta = &cta->cluster().cta(int(rank) - 1);
    if (cta != &w.cta() && space == Space::Shared)
      return refuse("it is in the shared memory of CTA " + std::to_string(rank - 1) +
                    " of the cluster, which .shared::cta does not reach");
  }
  const uint64_t own = address & ((uint64_t(1) << kRankShift) - 1);
  const uint32_t size = cta->shared().bytes();
  if (own < kSharedBase || own - kSharedBase > size || bytes > size - (own - kSharedBase))
    return refuse("the CTA has " + std::to_string(size) + " bytes from " + std::to_string(kSharedBase));
  if (cta != &w.cta() && !cta->admit(w, lane, address, copies))
    return {};
  return {cta, uint32_t(own - kSharedBase)};
}

bool checkGridBefore(Warp &w, uint32_t lane, uint64_t address) {
  if (w.grid_waited >> lane & 1)
    return true;
  w.fault(FaultKind::Race,
          "touches global memory before griddepcontrol.wait: the kernel before may still run", int(lane),
          address, Space::Global);
  return false;
}

uint8_t *access(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t align, uint32_t lane,
                AccessKind kind) {
  if (space == Space::Generic) {
    space = spaceOfGeneric(address);
    address -= windowOf(space);
    if (space == Space::Shared)
      space = Space::SharedCluster;
  }
  if (address % align) {
    w.fault(FaultKind::Misaligned,
            "accesses " + std::to_string(bytes) + " bytes, the address must be a multiple of " +
                std::to_string(align),
            int(lane), address, space);
    return nullptr;
  }
  const Program &p = w.program();
  switch (space) {
  case Space::Global:
    return globalAccess(w, address, bytes, lane, kind);
  case Space::Shared:
  case Space::SharedCluster:
    return sharedAccess(w, space, address, bytes, lane, kind);
  case Space::Param:
    if (address < kParamBase || address - kParamBase > p.param_bytes ||
        bytes > p.param_bytes - (address - kParamBase) || kind != AccessKind::Read)
      return outOfBounds(w, space, address, bytes, lane, kind,
                         "the entry has " + std::to_string(p.param_bytes) + " bytes of parameters from " +
                             std::to_string(kParamBase) + ", to be read only");
    return const_cast<uint8_t *>(w.cta().config().params.data()) + (address - kParamBase);
  case Space::Local: {
    if (address > p.local_bytes || bytes > p.local_bytes - address)
      return outOfBounds(w, space, address, bytes, lane, kind,
                         "a thread has " + std::to_string(p.local_bytes) + " bytes");
    if (kind == AccessKind::Write)
      std::memset(w.localWritten(lane) + address, 1, bytes);
    else if (!allWritten(w.localWritten(lane) + address, bytes))
      return unwritten(w, space, address, lane);
    return w.localMemory(lane) + address;
  }
  case Space::Const:
    if (address > p.const_data.size() || bytes > p.const_data.size() - address || kind != AccessKind::Read)
      return outOfBounds(w, space, address, bytes, lane, kind,
                         "there are " + std::to_string(p.const_data.size()) +
                             " bytes of constants, to be read only");
    if (!allWritten(p.const_written.data() + address, bytes))
      return unwritten(w, space, address, lane);
    return const_cast<uint8_t *>(p.const_data.data()) + address;
  case Space::Generic:
    break;
  }
  return outOfBounds(w, space, address, bytes, lane, kind, "it is in no space");
}

void addresses(const Warp &w, const Instruction &in, int i, uint64_t (&out)[kLanes]) {
  w.widen(in.src(i), out);
  for (uint64_t &a : out)
    a += uint64_t(in.immediate);
}

void countBanks(Warp &w, const uint64_t (&addresses)[kLanes], uint32_t mask, uint32_t bytes) {
  const uint32_t words = std::max(1u, bytes / 4), lanes_a_phase = kLanes / words;
  uint32_t passes = 0, ideal = 0;
  for (uint32_t first = 0; first < kLanes; first += lanes_a_phase) {
    uint64_t seen[kLanes];
    uint32_t count = 0, per_bank[32] = {}, most = 0;
    for (uint32_t lane = first; lane < first + lanes_a_phase; ++lane) {
      if (!(mask >> lane & 1))
        continue;
      for (uint32_t word = 0; word < words; ++word) {
        const uint64_t at = addresses[lane] / 4 + word;
        if (std::find(seen, seen + count, at) != seen + count)
          continue; // the same word is read once
        seen[count++] = at;
        most = std::max(most, ++per_bank[at % 32]);
      }
    }
    passes += most;
    ideal += count ? 1 : 0;
  }
  InstructionCount &c = w.cta().statistics().by_pc[w.pc()];
  c.wavefronts += passes;
  c.conflicts += passes - ideal;
}

uint32_t countSectors(const uint64_t (&addresses)[kLanes], uint32_t mask, uint32_t bytes) {
  uint64_t sectors[2 * kLanes];
  uint32_t n = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    if (mask >> lane & 1) {
      sectors[n++] = addresses[lane] / 32;
      if ((addresses[lane] + bytes - 1) / 32 != addresses[lane] / 32)
        sectors[n++] = (addresses[lane] + bytes - 1) / 32;
    }
  std::sort(sectors, sectors + n);
  return uint32_t(std::unique(sectors, sectors + n) - sectors);
}

} // namespace flashplus::emu
