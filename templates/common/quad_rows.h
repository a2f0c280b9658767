// SPDX-License-Identifier: BSD-3-Clause
// How rows of a fragment leave from registers, 16 bytes a store.
#pragma once

#include "ir/ir.h"
#include "spec/dtype.h"
#include "templates/common/fragment.h"

namespace flashplus {

/// Stores row `row` of the thread's fragment, its first `blocks` blocks of 8 columns, rounded, at `to`, where
/// `valid` (i1) holds. `quad`: lane % 4. The whole warp is here.
void storeQuadRow(Ir &ir, DType dtype, const Fragment &f, int row, int blocks, Val to, Val quad, Val valid);

} // namespace flashplus
