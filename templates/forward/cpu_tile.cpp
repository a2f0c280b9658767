// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_tile.h"

#include "templates/common/result_rows.h"
#include "templates/common/score.h"

namespace flashplus {

CpuTile::CpuTile(EmitContext &c, const WorkItem &item, const Sequence &sequence, int tile_m)
    : c_(c), item_(item), seq_(sequence), group_(c.ir.toI64(item.group)), first_(c.ir.toI64(item.m) * tile_m),
      all_(c.ir.toI64(sequence.q_len) * group_), exists_(first_ < all_),
      rows_(c.ir.min(c.ir.i64(tile_m), all_ - first_)) {}

Val CpuTile::valid(Val r) const { return first_ + c_.ir.min(r, rows_ - 1); }

Val CpuTile::queryRow(Val r) const { return c_.ir.toI32(valid(r) / group_); }

Val CpuTile::groupHead(Val r) const {
  Val row = valid(r);
  return row - row / group_ * group_;
}

Val CpuTile::rowOf(Val query, Val group_head) const {
  return c_.ir.toI64(query) * group_ + group_head - first_;
}

void CpuTile::store(const std::function<Val(Val r)> &maximum, const std::function<Val(Val r)> &sum,
                    const std::function<void(Val r, DType dtype, Val row, Val factor)> &write) const {
  Ir &ir = c_.ir;
  const ResultRows rows(ir, c_.params, c_.spec, seq_, item_);
  Val empty = rows.lseEmpty();
  Val stride = rows.rowStride(), head_stride = rows.headStride(), values = rows.values();
  Val lse = rows.lse(), lse_head_stride = rows.lseHeadStride();
  Val stores_lse = rows.storesLse(ir.boolean(true));
  Val scale = c_.spec.dropout ? c_.params.get("drop_scale") : Val{};
  ir.forLoop(ir.i64(0), rows_, ir.i64(1), [&](Val r) {
    std::optional<softmax::Sink> sink;
    if (c_.spec.hasSinks())
      sink = softmax::sinkOf(ir, c_.params, c_.spec, ir.toI64(item_.head) + groupHead(r));
    auto finish = softmax::finish(ir, maximum(r), sum(r), empty, sink);
    Val query = ir.toI64(queryRow(r)), head = groupHead(r);
    write(r, rows.dtype(), ir.offset(values, query * stride + head * head_stride),
          scale ? finish.factor * scale : finish.factor);
    ir.ifThen(stores_lse,
              [&] { ir.store(finish.lse, ir.offset(lse, head * lse_head_stride + query * 4), 4); });
  });
}

} // namespace flashplus
