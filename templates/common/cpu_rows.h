// SPDX-License-Identifier: BSD-3-Clause
// Rows of storage-type elements on a CPU: loads widen to fp32 vectors, stores round to nearest even. `count`
// lanes from the first are in memory; the rest read as 0 and are not written.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::cpu {

Val loadRow(Ir &ir, DType dtype, Val pointer, int count);
void storeRow(Ir &ir, DType dtype, Val vector, Val pointer, int count);

/// `count` 16-bit elements (at most twice the lanes) as dwords of two, in i32 lanes.
Val loadPairs(Ir &ir, Val pointer, int count);
/// Dwords of row0's elements (low) and row1's (high): `count` 16-bit elements of each. A row1 that is not
/// there reads as 0.
Val interleaveRows(Ir &ir, Val row0, Val row1, Val has_row1, int count);

/// Largest lane, as a scalar; and the sum of the lanes, in a fixed tree order.
Val reduceMax(Ir &ir, Val vector);
Val reduceSum(Ir &ir, Val vector);

/// Of `lanes` vectors: a vector whose lane i is the sum of vector i's lanes.
Val sumEach(Ir &ir, Vals vectors);
/// Every lane becomes the combination of the lanes of its segment of `segment` (a power of two) neighbours.
Val segmentMax(Ir &ir, Val vector, int segment);
Val segmentSum(Ir &ir, Val vector, int segment);

/// Elements of a row as fp32, `count` (at most twice the lanes) of them in one or two vectors: in order, but
/// of bf16, which is widened in pairs, the first vector has the even elements and the second the odd ones.
Vals loadChunk(Ir &ir, DType dtype, Val pointer, int count);
/// The two vectors of a chunk of bf16 in order.
Vals orderPairs(Ir &ir, Val even, Val odd);

/// Asks for the line of `pointer`, which need not be mapped, in the second-level cache.
void prefetch(Ir &ir, Val pointer);

/// Transposes `lanes` vectors of `lanes` fp32 in registers.
Vals transpose(Ir &ir, Vals rows);

/// What the elements of a packed matrix are: fp32, or dwords that hold two bf16 which are multiplied and
/// added as a pair.
enum class Packed { F32, Bf16Pairs };

/// acc + a * b, elementwise; of pairs both products are added. `a` and `b` are fp32 or i32 vectors.
Val multiplyAdd(Ir &ir, Packed packed, Val a, Val b, Val acc);

/// acc[r][c] += sum_i left[r][i] * right[i][c] over i in [begin, end), with mr * nr accumulator vectors in
/// registers. `left(r, i)` points at the element of row r; `right(i)` at the first vector of row i. Returns
/// r-major accumulators.
Vals multiplyBlock(Ir &ir, Packed packed, int mr, int nr, Val begin, Val end, const Vals &init,
                   llvm::function_ref<Val(int r, Val i)> left, llvm::function_ref<Val(Val i)> right);

} // namespace flashplus::cpu
