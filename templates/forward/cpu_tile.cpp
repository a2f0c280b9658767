// SPDX-License-Identifier: BSD-3-Clause
#include "templates/forward/cpu_tile.h"

#include "templates/common/score.h"

namespace flashplus {

CpuTile::CpuTile(EmitContext &c, const WorkItem &item, const Sequence &sequence, int tile_m)
    : c_(c), item_(item), seq_(sequence), group_(c.ir.toI64(item.group)), first_(c.ir.toI64(item.m) * double(tile_m)),
      all_(c.ir.toI64(sequence.q_len) * group_), exists_(first_ < all_), rows_(c.ir.min(c.ir.i64(tile_m), all_ - first_)) {}

Val CpuTile::valid(Val r) const { return first_ + c_.ir.min(r, rows_ - 1.0); }

Val CpuTile::queryRow(Val r) const { return c_.ir.toI32(valid(r) / group_); }

Val CpuTile::groupHead(Val r) const {
  Val row = valid(r);
  return row - row / group_ * group_;
}

void CpuTile::store(const std::function<Val(Val r)> &maximum, const std::function<Val(Val r)> &sum,
                    const std::function<void(Val r, DType dtype, Val row, Val factor)> &write) const {
  Ir &ir = c_.ir;
  const int dv = c_.spec.head_dim_v, bytes = dtypeBytes(c_.spec.dtype);
  Val empty = c_.spec.isPartial() ? ir.negativeInfinity(ir.f32()) : c_.params.get("lse_empty");
  Val o, stride, head_stride, lse, lse_head_stride, has_lse; // strides in bytes
  if (c_.spec.isPartial()) {
    // partial_o [split][row][head][dv], partial_lse [split][head][row]
    Val rows = c_.params.get("rows_q"), heads = ir.toI64(c_.params.get("heads_q"));
    Val split = ir.toI64(item_.split), head = ir.toI64(item_.head);
    stride = heads * double(dv * 4);
    head_stride = ir.i64(dv * 4);
    o = ir.offset(c_.params.get("partial_o"), ((split * rows + seq_.firstRow()) * heads + head) * double(dv * 4));
    lse = ir.offset(c_.params.get("partial_lse"), ((split * heads + head) * rows + seq_.firstRow()) * 4.0);
    lse_head_stride = rows * 4.0;
    has_lse = ir.boolean(true);
  } else {
    stride = c_.params.get("o_stride_s") * double(bytes);
    head_stride = c_.params.get("o_stride_h") * double(bytes);
    o = seq_.rows("o", item_.head, bytes);
    lse = seq_.lse(item_.head);
    lse_head_stride = c_.params.get("lse_stride_h") * 4.0;
    has_lse = ir.isNull(c_.params.get("lse")) == ir.boolean(false);
  }
  const DType dtype = c_.spec.isPartial() ? DType::F32 : c_.spec.dtype;
  ir.forLoop(ir.i64(0), rows_, ir.i64(1), [&](Val r) {
    auto finish = softmax::finish(ir, maximum(r), sum(r), empty);
    Val query = ir.toI64(queryRow(r)), head = groupHead(r);
    write(r, dtype, ir.offset(o, query * stride + head * head_stride), finish.factor);
    ir.ifThen(has_lse, [&] { ir.store(finish.lse, ir.offset(lse, head * lse_head_stride + query * 4.0), 4); });
  });
}

void CpuTile::count(const Mask::Tiles &tiles) const {
  Ir &ir = c_.ir;
  Val counter = c_.params.get("tile_counter");
  ir.ifThen(ir.isNull(counter) == ir.boolean(false), [&] {
    Val count = ir.toI64(ir.max(ir.i32(0), tiles.end - tiles.begin));
    mlir::LLVM::AtomicRMWOp::create(ir.builder, ir.loc, mlir::LLVM::AtomicBinOp::add, counter.value, count.value,
                                    mlir::LLVM::AtomicOrdering::monotonic);
  });
}

} // namespace flashplus
