// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/sm80_flash/copy.h"

namespace flashplus::sm80_flash {

Copy::Copy(ItemView &kernel)
    : k_(kernel), loader_(k_.ir, k_.c.spec.alignment, k_.bytes, k_.l.threads(), k_.thread, k_.c.scratch) {
  const Sm80FlashLayout &l = k_.l;
  q_ = tile(Operand::Q, k_.item.head, l.dqk, l.dqk_pad, l.tile_m, l.qPitch(), l.q(), false);
  keys_ = tile(Operand::K, k_.item.head_k, l.dqk, l.dqk_pad, l.tile_n, l.kPitch(), l.k(), false);
  values_ = tile(Operand::V, k_.item.head_k, l.dv, l.dv_pad, l.tile_n, l.vPitch(), l.v(), true);
}

TileLoad Copy::tile(Operand operand, Val head, int dim, int dim_pad, int rows, int pitch, int shared,
                    bool zeros) {
  return loader_.tile({{k_.seq, operand, head, k_.seq.pagedKeys() ? k_.mask.leastKey(k_.first) : Val{}},
                       k_.c.params.get(operandInfo(operand).stride_s),
                       dim,
                       dim_pad,
                       rows,
                       pitch,
                       shared,
                       zeros});
}

} // namespace flashplus::sm80_flash
