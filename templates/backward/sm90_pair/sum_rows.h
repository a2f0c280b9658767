// SPDX-License-Identifier: BSD-3-Clause
// How a warpgroup's sums leave: from registers, whole rows.
#pragma once

#include "templates/common/fragment.h"
#include "templates/common/sequence.h"
#include "templates/emit.h"

namespace flashplus {

/// Stores rows of `operand`'s head `head` times `factor` (absent: 1). The thread's first row is row `first`
/// of the sequence; none past `last` is stored. The whole warp is here.
void storeSumRows(EmitContext &c, const Sequence &sequence, Operand operand, Val head, Fragment sum,
                  Val factor, Val first, Val last, Val lane);

} // namespace flashplus
