// SPDX-License-Identifier: BSD-3-Clause
// A problem's keys and values as a cache of pages, for --page-size: the same keys, found through a table.
#pragma once

#include "tools/flashplus/tensors.h"

namespace flashplus::tool {

struct PagedKeys {
  io::Tensor k, v;        ///< (num_blocks, page_size, heads, head_dim); slots of no key are NaN.
  io::Tensor block_table; ///< (batch, max_blocks); entries beyond a sequence's pages are -1.
  io::Tensor seqused_k;   ///< (batch)
};

/// Of a problem that checkProblem() has let through and whose page_size is not 0.
Result<PagedKeys> makePages(const Problem &problem);

} // namespace flashplus::tool
