// SPDX-License-Identifier: BSD-3-Clause
// Rows of storage-type elements on a CPU: loads widen to fp32 vectors, stores round to nearest even. `count` lanes
// from the first are in memory; the rest read as 0 and are not written.
#pragma once

#include "compiler/ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::cpu {

Val loadRow(Ir &ir, DType dtype, Val pointer, int count);
void storeRow(Ir &ir, DType dtype, Val vector, Val pointer, int count);

/// Largest lane, as a scalar; and the sum of the lanes, in a fixed tree order.
Val reduceMax(Ir &ir, Val vector);
Val reduceSum(Ir &ir, Val vector);

/// Transposes `lanes` vectors of `lanes` fp32 in registers.
Vals transpose(Ir &ir, Vals rows);

/// acc[r][c] += sum_i left[r][i] * right[i][c] over i in [0, depth), with mr * nr accumulator vectors in registers.
/// `left(r, i)` is the scalar of row r; `right(i)` points at the first vector of row i. Returns r-major accumulators.
Vals multiplyBlock(Ir &ir, int mr, int nr, Val depth, const Vals &init, llvm::function_ref<Val(int r, Val i)> left,
                   llvm::function_ref<Val(Val i)> right);

} // namespace flashplus::cpu
