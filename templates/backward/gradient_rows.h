// SPDX-License-Identifier: BSD-3-Clause
// How gradients leave: rounded into shared memory, from where the block stores whole rows.
#pragma once

#include "spec/kernel_spec.h"
#include "templates/common/fragment.h"
#include "templates/common/sequence.h"

namespace flashplus {

/// A warp's fragment times `factor` (absent: 1) -> shared memory, rounded. `tile` points to the warp's first
/// row and column.
void storeFragment(Ir &ir, DType dtype, const Fragment &f, Val factor, Val lane, Val tile, int pitch);

/// A tile of a gradient in shared memory.
struct GradientTile {
  Operand operand;
  Val head;        ///< i32
  Val first, last; ///< Rows of the sequence that are stored.
  Val tile;        ///< Row `first`, in shared memory.
  int rows, dim, pitch;
};

/// By all `threads` threads of the block, of which `thread` is one; the tile has been written, a barrier ago.
void storeRows(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence,
               const GradientTile &t, Val thread, int threads);

} // namespace flashplus
