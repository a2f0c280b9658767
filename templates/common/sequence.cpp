// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/sequence.h"

#include "ir/carried.h"

namespace flashplus {

namespace {

/// The rows of one side of a batch entry.
struct Rows {
  Val first, count;
  void fields(auto &&each) { each(first, count); }
};

/// `first` as an i64.
Rows locateRows(Ir &ir, Val cu_seqlens, Val seqused, Val dense_length, Val batch, Val ragged) {
  Val byte = batch * 4;
  const Rows found = carry::ifElse(
      ir, ragged,
      [&] {
        Val start = ir.load(ir.i32(), ir.offset(cu_seqlens, byte), 4);
        Val end = ir.load(ir.i32(), ir.offset(ir.offset(cu_seqlens, byte), 4), 4);
        return Rows{start, end - start};
      },
      [&] { return Rows{ir.i32(0), dense_length}; });
  Val used = carry::ifElse(
      ir, ir.isNull(seqused), [&] { return found.count; },
      [&] {
        return ir.max(ir.i32(0), ir.min(found.count, ir.load(ir.i32(), ir.offset(seqused, byte), 4)));
      });
  return {ir.toI64(found.first), used};
}

} // namespace

Sequence::Sequence(Ir &ir, const ParamReader &params, Val batch, bool with_keys)
    : ir_(ir), params_(params), batch_(ir.toI64(batch)) {
  Val cu_q = params.get("cu_seqlens_q");
  ragged_q_ = !ir.isNull(cu_q);
  const Rows q = locateRows(ir, cu_q, params.get("seqused_q"), params.get("seqlen_q"), batch_, ragged_q_);
  start_q_ = q.first;
  q_len = q.count;
  first_row_ = ir.select(ragged_q_, start_q_, batch_ * ir.toI64(params.get("seqlen_q")));
  if (!with_keys)
    return;
  Val cu_k = params.get("cu_seqlens_k");
  ragged_k_ = !ir.isNull(cu_k);
  const Rows k = locateRows(ir, cu_k, params.get("seqused_k"), params.get("seqlen_k"), batch_, ragged_k_);
  start_k_ = k.first;
  k_len = k.count;
}

Val Sequence::rows(Operand operand, Val head, int bytes) const {
  const OperandInfo &info = operandInfo(operand);
  const bool keys = operandInfo(operand).side == Side::Key;
  Val start =
      ir_.select(keys ? ragged_k_ : ragged_q_, (keys ? start_k_ : start_q_) * params_.get(info.stride_s),
                 batch_ * params_.get(info.stride_b));
  Val elements = start + ir_.toI64(head) * params_.get(info.stride_h);
  return ir_.offset(params_.get(info.name), elements * bytes);
}

std::pair<Val, Val> Sequence::mapCoordinates(Operand operand) const {
  const bool keys = operandInfo(operand).side == Side::Key;
  Val ragged = keys ? ragged_k_ : ragged_q_;
  return {ir_.toI32(keys ? start_k_ : start_q_), ir_.select(ragged, ir_.i32(0), ir_.toI32(batch_))};
}

Val Sequence::hasRowsBehind(Operand operand) const {
  const bool keys = operandInfo(operand).side == Side::Key;
  Val used = params_.get(keys ? "seqused_k" : "seqused_q");
  return (keys ? ragged_k_ : ragged_q_) | !ir_.isNull(used);
}

Val Sequence::lseLike(std::string_view name, Val head) const {
  const std::string text(name);
  Val start = ir_.select(ragged_q_, start_q_, batch_ * params_.get(text + "_stride_b"));
  return ir_.offset(params_.get(name), (start + ir_.toI64(head) * params_.get(text + "_stride_h")) * 4);
}

} // namespace flashplus
