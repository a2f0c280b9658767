// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/sm80_backward_kv/copy.h"

#include "ir/async_copy.h"
#include "templates/backward/rows/row_values.h"
namespace flashplus::sm80_backward_kv {

Copy::Copy(ItemView &kernel)
    : k_(kernel), ir_(kernel.ir),
      loader_(ir_, k_.c.spec.alignment, k_.bytes, k_.l.threads(), k_.thread, k_.c.scratch, /*others=*/true) {
  const Sm80BackwardKVLayout &l = k_.l;
  // Weights of keys past the last one go into rows of dK and dV that nobody stores; those of queries past the
  // last one are 0 in every row.
  keys_ = tile(Operand::K, k_.item.head_k, l.dqk, l.dqk_pad, l.tile_n, l.qkPitch(), l.k(), false);
  values_ = tile(Operand::V, k_.item.head_k, l.dv, l.dv_pad, l.tile_n, l.vPitch(), l.v(), false);
  q_ = tile(Operand::Q, k_.item.head, l.dqk, l.dqk_pad, l.tile_m, l.qkPitch(), l.q(), true);
  dout_ = tile(Operand::DO, k_.item.head, l.dv, l.dv_pad, l.tile_m, l.vPitch(), l.dout(), true);
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

/// The tile of the group's head `head`.
TileLoad Copy::ofHead(TileLoad t, Operand operand, Val head) {
  t.from = ir_.offset(t.from, ir_.toI64(head) * (k_.c.params.get(operandInfo(operand).stride_h) * k_.bytes));
  return t;
}

void Copy::queries(const QueryWalk &walk, const QueryWalk::Place &place, Val stage) {
  const Sm80BackwardKVLayout &l = k_.l;
  Val query = walk.query(place), last = k_.seq.q_len - 1;
  loader_.load(ofHead(q_, Operand::Q, place.head), query, last, stage ? stage * l.qStage() : Val{});
  loader_.load(ofHead(dout_, Operand::DO, place.head), query, last, stage ? stage * l.doutStage() : Val{});
  rowValues(place.head, query, last, stage);
}

/// Rows past the last one repeat its values: their weights are masked.
void Copy::rowValues(Val head, Val query, Val last, Val stage) {
  const Sm80BackwardKVLayout &l = k_.l;
  const RowValues values(ir_, k_.c.params, k_.seq, k_.item.head + head);
  Val lse = values.lse(), delta = values.delta();
  for (int i = 0; i < 2 * l.tile_m; i += l.threads()) {
    Val index = k_.thread + i;
    auto copy = [&] {
      Val row = ir_.min(query + index % l.tile_m, last);
      Val to = k_.shared(l.rowValues(), index * 4);
      gpu::copyAsync4(ir_, stage ? ir_.offset(to, stage * l.rowValuesStage()) : to,
                      ir_.offset(ir_.select(index < l.tile_m, lse, delta), ir_.toI64(row) * 4));
    };
    if (i + l.threads() <= 2 * l.tile_m)
      copy();
    else
      ir_.ifThen(index < 2 * l.tile_m, copy);
  }
}

} // namespace flashplus::sm80_backward_kv
