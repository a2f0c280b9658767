// SPDX-License-Identifier: BSD-3-Clause
// Rotary embedding of a row: pairs of columns (a, b) become (a cos - b sin, a sin + b cos), in fp32, rounded
// once.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"

namespace flashplus {

/// What all rows of a kernel have in common.
struct Rotary {
  DType dtype;
  Val interleaved; ///< i1: pairs (2i, 2i + 1), else (i, i + half).
  Val cos, sin;    ///< Pointers to the row's numbers, one a pair.
};

namespace cpu {
/// Columns [0, columns) of a row, of which the first `rotated` turn; both i32.
void moveRow(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated);
} // namespace cpu

namespace gpu {
/// The same by threads 0 to `lanes` - 1, element by element,
void moveRow(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated, Val lane, int lanes);
/// and by 16 bytes of 16-bit elements, at which every row starts; columns / 8 and rotated / 16 are whole.
void moveRowWide(Ir &ir, const Rotary &rotary, Val from, Val to, Val columns, Val rotated, Val lane,
                 int lanes);
} // namespace gpu

} // namespace flashplus
