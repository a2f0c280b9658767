// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous warpgroup products of sm_90a (wgmma): a function an instruction, without a policy, and a type
// that makes an ordering rule of the assembler an assertion of the generator:
//   InFlight  accumulators and register operands of products that were issued and not yet waited for.
//   Touching them
//             earlier makes ptxas run every product one after the other (its messages C7513, C7514), silently
//             but for a log line.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::gpu {

/// Matrix descriptors of 128-byte-swizzled tiles (PTX ISA, "Matrix descriptor format"); i64. `address` is
/// that of a tile aligned to 1024 bytes, made of slabs of 64 16-bit columns.
Val descriptorRowsContiguousInK(Ir &ir, Val address);           ///< Rows are M or N, columns K: Q, K.
Val descriptorColumnsAreN(Ir &ir, Val address, int slab_bytes); ///< Rows are K, columns N: V.

class InFlight {
public:
  InFlight(InFlight &&other) noexcept;
  InFlight &operator=(InFlight &&) = delete;
  ~InFlight() { assert(values_.empty() && "a product was never waited for"); }

private:
  friend InFlight productFromShared(Ir &, DType, int, int, Val, llvm::ArrayRef<int>, Val,
                                    llvm::ArrayRef<int>, bool);
  friend InFlight productFromRegisters(Ir &, DType, int, Vals, const Vals &, Val, llvm::ArrayRef<int>);
  friend Vals wait(Ir &, int, InFlight &&, Vals *);
  friend std::pair<Vals, Vals> waitBoth(Ir &, InFlight &&, InFlight &&, int);
  InFlight(Vals values, Vals operands) : values_(std::move(values)), operands_(std::move(operands)) {}
  Vals values_, operands_;
};

/// One committed group: D = A B over `steps` steps of 16 in K, 64 x n fp32 accumulators (n / 2 a thread) that
/// start at zero. Both operands lie in shared memory; step i reads at descriptor a + a_steps[i] and b +
/// b_steps[i], in bytes. `columns_are_n`: B's rows are K (descriptorColumnsAreN), else N.
InFlight productFromShared(Ir &ir, DType dtype, int n, int steps, Val a, llvm::ArrayRef<int> a_steps, Val b,
                           llvm::ArrayRef<int> b_steps, bool columns_are_n = false);

/// One committed group: D += A B, A from registers (4 a step, packed pairs), B with columns N. `d` must not
/// be used afterwards, `a` not be redefined before the wait; the SSA form sees to both.
InFlight productFromRegisters(Ir &ir, DType dtype, int n, Vals d, const Vals &a, Val b,
                              llvm::ArrayRef<int> b_steps);

/// Waits until at most `pending` later groups are in flight and returns the accumulators. `after`: values
/// that must not be used before the wait either (they come back changed in identity only).
Vals wait(Ir &ir, int pending, InFlight &&product, Vals *after = nullptr);
/// Waits for two groups, after which at most `pending` later ones are in flight; their accumulators.
std::pair<Vals, Vals> waitBoth(Ir &ir, InFlight &&first, InFlight &&second, int pending = 0);

/// Keeps the assembler from moving the next wait above the computation of `value` (f32): ptxas takes a wait
/// for an instruction with a long latency and without operands, and starts it as early as it can, which would
/// undo every overlap of a product with arithmetic. It does not move it over a branch, so this is one that is
/// never taken, on a bit pattern that no arithmetic makes.
void computeBeforeWait(Ir &ir, Val value);

} // namespace flashplus::gpu
