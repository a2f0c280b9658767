// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm80_backward_q/copy.h"

namespace flashplus::sm80_backward_q {

Copy::Copy(ItemView &kernel)
    : k_(kernel), loader_(k_.ir, k_.c.spec.alignment, k_.bytes, k_.l.threads(), k_.thread, k_.c.scratch) {
  const Sm80BackwardQLayout &l = k_.l;
  // Rows past the last query are rows of dQ that nobody stores; keys past the last one are summed over.
  q_ = tile(Operand::Q, k_.item.head, l.dqk, l.dqk_pad, l.tile_m, l.qkPitch(), l.q(), false);
  dout_ = tile(Operand::DO, k_.item.head, l.dv, l.dv_pad, l.tile_m, l.vPitch(), l.dout(), false);
  keys_ = tile(Operand::K, k_.item.head_k, l.dqk, l.dqk_pad, l.tile_n, l.qkPitch(), l.k(), true);
  values_ = tile(Operand::V, k_.item.head_k, l.dv, l.dv_pad, l.tile_n, l.vPitch(), l.v(), true);
}

TileLoad Copy::tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared,
                    bool zeros) {
  return loader_.tile({{k_.seq, operand, head},
                       k_.c.params.get(operandInfo(operand).stride_s),
                       dim,
                       dim_pad,
                       rows,
                       pitch,
                       shared,
                       zeros});
}

} // namespace flashplus::sm80_backward_q
