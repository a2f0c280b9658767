// SPDX-License-Identifier: BSD-3-Clause
// One lane's access to memory, checked.
#pragma once

#include "emulator/core/cta.h"

namespace flashplus::emu {

enum class AccessKind : uint8_t { Read, Write, Atomic };

/// Checks space, alignment, bounds, and what the shadow state knows, and returns where the bytes are; null
/// after a fault. `space` may be Generic. A write counts as done.
uint8_t *access(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t align, uint32_t lane,
                AccessKind kind);

/// Whether `lane` has waited for the grid before, if the program overlaps it; false after a fault.
bool checkGridBefore(Warp &w, uint32_t lane, uint64_t address);

/// Where `bytes` at a shared address lie. `space`: Shared reaches the executing CTA's own memory,
/// SharedCluster that of the cluster's other CTAs too, which must have started and not exited. Null `cta`
/// after a fault, whose message begins with `what`. `copies`: Cta::admit.
struct SharedPlace {
  Cta *cta = nullptr;
  uint32_t offset = 0;
};
SharedPlace sharedPlace(Warp &w, Space space, uint64_t address, uint32_t bytes, uint32_t lane,
                        const char *what, bool copies = false);

/// Effective addresses of an instruction whose base is source `i`.
void addresses(const Warp &w, const Instruction &in, int i, uint64_t (&out)[kLanes]);

/// Counts one warp access to shared memory of `bytes` a lane: passes through the 32 banks of 4 bytes, and how
/// many more than without conflicts. 8- and 16-byte accesses go in two and four phases of lanes.
void countBanks(Warp &w, const uint64_t (&addresses)[kLanes], uint32_t mask, uint32_t bytes);
/// Distinct 32-byte sectors that the lanes touch.
uint32_t countSectors(const uint64_t (&addresses)[kLanes], uint32_t mask, uint32_t bytes);

} // namespace flashplus::emu
