// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/isa/builder.h"

namespace flashplus::emu {

/// cp.async.bulk..., whose first two modifiers are taken.
void decodeBulk(Builder &b);
/// prefetch.tensormap, whose modifier is taken.
void decodePrefetchMap(Builder &b);

// fence.proxy.async and fence.mbarrier_init (mbarrier.cpp)
void runProxyFence(Warp &w, const Instruction &in, uint32_t mask);
void runBarrierInitFence(Warp &w, const Instruction &in, uint32_t mask);

} // namespace flashplus::emu
