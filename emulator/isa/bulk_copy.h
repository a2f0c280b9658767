// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "emulator/core/tensor_map.h"
#include "emulator/isa/access.h"
#include "emulator/isa/builder.h"

namespace flashplus::emu {

/// cp.async.bulk..., whose first two modifiers are taken.
void decodeBulk(Builder &b);
/// cp.async.bulk from shared to global memory; its groups. The modifiers up to the destination are taken;
/// `rank` 0: no tensor; `reduces`: cp.reduce.
void decodeBulkStore(Builder &b, int rank, bool reduces);
void decodeBulkCommit(Builder &b);
void decodeBulkWait(Builder &b);
/// prefetch.tensormap, whose modifier is taken.
void decodePrefetchMap(Builder &b);

/// [map, {coordinates}]: the map as a source now; the coordinates to be added by coordinates().
const OperandAst *mapOperand(Builder &b, size_t i, int rank);
void coordinates(Builder &b, const OperandAst &map);

/// The map at a generic address; false after a fault, also when it has not `rank` dimensions.
bool readMap(Warp &w, uint64_t address, uint32_t lane, int rank, TensorMapContents &map);
/// Bytes of a box.
uint32_t boxBytes(const TensorMapContents &map);
/// False after a fault: where a box may lie in shared memory, and where it may start in the tensor.
bool checkBox(Warp &w, uint64_t address, const int64_t (&start)[5], uint32_t lane,
              const TensorMapContents &map);
/// The box's pieces: runs of bytes that are contiguous on both sides, 16 bytes when swizzled; `from` 0 marks
/// what lies outside the tensor. `to` is an address in .shared::cta.
void cutBox(const TensorMapContents &map, const int64_t (&start)[5], uint32_t to, BulkCopy &copy);

// fence.proxy.async and fence.mbarrier_init (mbarrier.cpp)
void runProxyFence(Warp &w, const Instruction &in, uint32_t mask);
void runBarrierInitFence(Warp &w, const Instruction &in, uint32_t mask);

} // namespace flashplus::emu
