// SPDX-License-Identifier: BSD-3-Clause
// Transaction barriers of sm_90a (mbarrier), 8 bytes of shared memory each, and Pipeline: a ring of
// shared-memory stages with its barriers, which owns stage and phase.
#pragma once

#include "ir/ir.h"

namespace flashplus::gpu {

// Shared memory is addressed by 32-bit numbers here (what the instructions take).
Val sharedAddress(Ir &ir, Val pointer); ///< i32 of a shared-memory pointer.

void initBarrier(Ir &ir, Val barrier, int arrivals);
void fenceBarrierInit(Ir &ir);
void arrive(Ir &ir, Val barrier, Val predicate);   ///< By the threads whose `predicate` (i1) holds.
void arriveExpect(Ir &ir, Val barrier, int bytes); ///< Arrives, and makes the phase wait for `bytes` more.
/// Spins until the phase of parity `parity` (i32, 0 or 1) is complete.
void waitBarrier(Ir &ir, Val barrier, Val parity);

/// Position in a ring, two i32.
struct Position {
  Val stage, phase;
  void fields(auto &&each) { each(stage, phase); }
};

class Pipeline {
public:
  /// `barriers`: address of 2 * stages mbarriers, the full ones first.
  Pipeline(Ir &ir, int stages, Val barriers) : ir_(ir), stages_(stages), barriers_(barriers) {}

  /// By one thread. `producers` and `consumers` arrivals complete a phase.
  void init(int producers, int consumers);

  Position start() { return {ir_.i32(0), ir_.i32(0)}; }
  Position next(Position p);
  Position advance(Position p, Val count); ///< next(), `count` (i32, not negative) times.

  Val full(Position p) { return barriers_ + p.stage * 8; }
  void waitFull(Position p) { waitBarrier(ir_, full(p), p.phase); }
  void waitEmpty(Position p) { waitBarrier(ir_, empty(p), p.phase ^ 1); }
  void release(Position p, Val predicate) { arrive(ir_, empty(p), predicate); }

private:
  Val empty(Position p) { return barriers_ + p.stage * 8 + 8 * stages_; }
  Ir &ir_;
  int stages_;
  Val barriers_;
};

} // namespace flashplus::gpu
