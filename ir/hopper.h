// SPDX-License-Identifier: BSD-3-Clause
// Instructions that only sm_90a has: asynchronous warpgroup products (wgmma), bulk tensor copies (TMA), transaction
// barriers (mbarrier), register reallocation. A function each, without a policy; and two types that make the
// assembler's ordering rules assertions of the generator:
//   InFlight  accumulators and register operands of products that were issued and not yet waited for. Touching them
//             earlier makes ptxas run every product one after the other (its messages C7513, C7514), silently but for a log line.
//   Pipeline  a ring of shared-memory stages with its barriers; owns stage and phase.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::hopper {

// Shared memory is addressed by 32-bit numbers here (what the instructions take).
Val sharedAddress(Ir &ir, Val pointer); ///< i32 of a shared-memory pointer.

Val uniformWarp(Ir &ir, Val thread); ///< thread / 32 as a value that the assembler knows to be warp-uniform; i32.
Val uniform(Ir &ir, Val value);      ///< The first lane's i32, known to be warp-uniform.
Val electOne(Ir &ir);                ///< True in one lane of a converged warp; i1.
void increaseRegisters(Ir &ir, int registers); ///< Of a warpgroup's threads; all of its warps execute it.
void decreaseRegisters(Ir &ir, int registers);

// Named barriers 1 to 15, of `threads` threads (sync and arrive counted together).
void barrierSync(Ir &ir, Val id, int threads);
void barrierArrive(Ir &ir, Val id, int threads);

// --- mbarriers: 8 bytes of shared memory each --------------------------------------------------------------------
void initBarrier(Ir &ir, Val barrier, int arrivals);
void fenceBarrierInit(Ir &ir);
void arrive(Ir &ir, Val barrier, Val predicate); ///< By the threads whose `predicate` (i1) holds.
void arriveExpect(Ir &ir, Val barrier, int bytes); ///< Arrives, and makes the phase wait for `bytes` more.
/// Spins until the phase of parity `parity` (i32, 0 or 1) is complete.
void waitBarrier(Ir &ir, Val barrier, Val parity);

/// How long the second-level cache should keep what a copy reads.
enum class Keep { Normal, First, Last };

/// One box of tensor map `map` (generic pointer) at (column, row, head, batch), i32 each, into shared memory. Elements
/// outside the tensor arrive as zeros and count. Executed by one thread.
void loadBox(Ir &ir, Val shared, Val map, const Vals &coordinates, Val barrier, Keep keep);
void prefetchMap(Ir &ir, Val map);

/// Makes this thread's ordinary writes to shared memory visible to products and bulk copies.
void fenceAsyncShared(Ir &ir);

// --- products ------------------------------------------------------------------------------------------------------
/// Matrix descriptors of 128-byte-swizzled tiles (PTX ISA, "Matrix descriptor format"); i64. `address` is that of a
/// tile aligned to 1024 bytes, made of slabs of 64 16-bit columns.
Val descriptorRowsContiguousInK(Ir &ir, Val address); ///< Rows are M or N, columns K: Q, K.
Val descriptorColumnsAreN(Ir &ir, Val address, int slab_bytes); ///< Rows are K, columns N: V.

class InFlight {
public:
  InFlight(InFlight &&other) noexcept;
  InFlight &operator=(InFlight &&) = delete;
  ~InFlight() { assert(values_.empty() && "a product was never waited for"); }

private:
  friend InFlight productFromShared(Ir &, DType, int, int, Val, llvm::ArrayRef<int>, Val, llvm::ArrayRef<int>);
  friend InFlight productFromRegisters(Ir &, DType, int, Vals, const Vals &, Val, llvm::ArrayRef<int>);
  friend Vals wait(Ir &, int, InFlight &&, Vals *);
  InFlight(Vals values, Vals operands) : values_(std::move(values)), operands_(std::move(operands)) {}
  Vals values_, operands_;
};

/// One committed group: D = A B over `steps` steps of 16 in K, 64 x n fp32 accumulators (n / 2 a thread) that start at
/// zero. Both operands lie in shared memory; step i reads at descriptor a + a_steps[i] and b + b_steps[i], in bytes.
InFlight productFromShared(Ir &ir, DType dtype, int n, int steps, Val a, llvm::ArrayRef<int> a_steps, Val b,
                           llvm::ArrayRef<int> b_steps);

/// One committed group: D += A B, A from registers (4 a step, packed pairs), B with columns N. `d` must not be used
/// afterwards, `a` not be redefined before the wait; the SSA form sees to both.
InFlight productFromRegisters(Ir &ir, DType dtype, int n, Vals d, const Vals &a, Val b, llvm::ArrayRef<int> b_steps);

/// Waits until at most `pending` later groups are in flight and returns the accumulators. `after`: values that must not
/// be used before the wait either (they come back changed in identity only).
Vals wait(Ir &ir, int pending, InFlight &&product, Vals *after = nullptr);

/// Keeps the assembler from moving the next wait above the computation of `value` (f32): ptxas takes a wait for an
/// instruction with a long latency and without operands, and starts it as early as it can, which would undo every overlap of
/// a product with arithmetic. It does not move it over a branch, so this is one that is never taken, on a bit pattern that no
/// arithmetic makes.
void computeBeforeWait(Ir &ir, Val value);

// --- pipeline ----------------------------------------------------------------------------------------------------
/// Position in a ring, carried through loops as two i32.
struct Position {
  Val stage, phase;
};

class Pipeline {
public:
  /// `barriers`: address of 2 * stages mbarriers, the full ones first.
  Pipeline(Ir &ir, int stages, Val barriers) : ir_(ir), stages_(stages), barriers_(barriers) {}

  /// By one thread. `producers` and `consumers` arrivals complete a phase.
  void init(int producers, int consumers);

  Position start() { return {ir_.i32(0), ir_.i32(0)}; }
  Position next(Position p);

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

} // namespace flashplus::hopper
