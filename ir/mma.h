// SPDX-License-Identifier: BSD-3-Clause
// Warp-wide products of 16-bit elements (ldmatrix, mma.sync: sm_80), and the packed pairs that they and wgmma
// read.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus::gpu {

/// ldmatrix.x4 of 16-bit elements: four i32 registers. Lanes 8i to 8i + 7 address the rows of matrix i.
Vals loadMatrix4(Ir &ir, Val shared, bool transposed);

/// movmatrix.trans: an 8 x 8 matrix of 16-bit elements, of which lane l holds two neighbours of row l / 4, is
/// transposed; i32 each.
Val transposeMatrix(Ir &ir, Val pairs);

/// d = a b + c, m16n8k16, a: 4 and b: 2 registers of 16-bit pairs, c and d: 4 fp32.
Vals mma16816(Ir &ir, DType dtype, const Vals &a, const Vals &b, const Vals &c);

/// Two fp32 rounded to nearest even and packed, `low` in the lower half; i32.
Val pack(Ir &ir, DType dtype, Val low, Val high);

/// Loads one element as fp32.
Val loadElement(Ir &ir, DType dtype, Val pointer);
/// Rounds and stores one element.
void storeElement(Ir &ir, DType dtype, Val value, Val pointer);

} // namespace flashplus::gpu
