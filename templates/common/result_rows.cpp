// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/result_rows.h"

namespace flashplus {
namespace {

constexpr int kFp32 = dtypeBytes(DType::F32);

} // namespace

PartialRows::PartialRows(Ir &ir, const ParamReader &params, int head_dim_v)
    : ir_(ir), params_(params), row_bytes_(head_dim_v * kFp32), heads_(ir.toI64(params.get("heads_q"))),
      rows_(params.get("rows_q")) {}

Val PartialRows::o(Val split, Val row, Val head) const {
  return ir_.offset(params_.get("partial_o"), ((split * rows_ + row) * heads_ + head) * row_bytes_);
}

Val PartialRows::lse(Val split, Val row, Val head) const {
  return ir_.offset(params_.get("partial_lse"), ((split * heads_ + head) * rows_ + row) * kFp32);
}

Val PartialRows::rowStride() const { return heads_ * row_bytes_; }

Val ResultRows::values() const {
  if (!spec_.isPartial())
    return sequence_.rows(Operand::O, item_.head, dtypeBytes(dtype()));
  return PartialRows(ir_, params_, spec_.head_dim_v)
      .o(ir_.toI64(item_.split), sequence_.firstRow(), ir_.toI64(item_.head));
}

Val ResultRows::rowStride() const {
  if (!spec_.isPartial())
    return params_.get("o_stride_s") * dtypeBytes(dtype());
  return PartialRows(ir_, params_, spec_.head_dim_v).rowStride();
}

Val ResultRows::headStride() const {
  if (spec_.isPartial())
    return ir_.i64(spec_.head_dim_v * kFp32);
  return params_.get("o_stride_h") * dtypeBytes(dtype());
}

Val ResultRows::lse() const {
  if (!spec_.isPartial())
    return sequence_.lse(item_.head);
  return PartialRows(ir_, params_, spec_.head_dim_v)
      .lse(ir_.toI64(item_.split), sequence_.firstRow(), ir_.toI64(item_.head));
}

Val ResultRows::lseHeadStride() const {
  return params_.get(spec_.isPartial() ? "rows_q" : "lse_stride_h") * kFp32;
}

Val ResultRows::lseEmpty() const {
  return spec_.isPartial() ? ir_.negativeInfinity(ir_.f32()) : params_.get("lse_empty");
}

Val ResultRows::storesLse(Val among) const {
  return spec_.isPartial() ? among : among & !ir_.isNull(params_.get("lse"));
}

void countTiles(Ir &ir, const ParamReader &params, llvm::function_ref<Val()> tiles,
                llvm::function_ref<Val(Val counting)> when) {
  Val counter = params.get("tile_counter");
  Val counting = !ir.isNull(counter);
  ir.ifThen(when ? when(counting) : counting, [&] {
    mlir::LLVM::AtomicRMWOp::create(ir.builder, ir.loc, mlir::LLVM::AtomicBinOp::add, counter.value,
                                    ir.toI64(tiles()).value, mlir::LLVM::AtomicOrdering::monotonic,
                                    ir.gpu ? "device" : "");
  });
}

} // namespace flashplus
