// SPDX-License-Identifier: BSD-3-Clause
// Seed and offset of a kernel with dropout, in the halves that Philox's counter and key take
// (spec/dropout.h).
#pragma once

#include "ir/ir.h"

namespace flashplus {

struct RngState {
  /// Reads both, by rng_state where that is not null.
  RngState(Ir &ir, const ParamReader &params);

  Val offset; ///< Low half, i32.
  Val key[2]; ///< i32
};

} // namespace flashplus
