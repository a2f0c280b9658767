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

Sequence::Sequence(Ir &ir, const ParamReader &params, Val batch, std::optional<KeyAddressing> keys)
    : ir_(ir), params_(params), batch_(ir.toI64(batch)) {
  Val cu_q = params.get("cu_seqlens_q");
  ragged_q_ = !ir.isNull(cu_q);
  const Rows q = locateRows(ir, cu_q, params.get("seqused_q"), params.get("seqlen_q"), batch_, ragged_q_);
  start_q_ = q.first;
  q_len = q.count;
  first_row_ = ir.select(ragged_q_, start_q_, batch_ * ir.toI64(params.get("seqlen_q")));
  if (!keys)
    return;
  paged_ = *keys == KeyAddressing::Paged;
  if (paged_) {
    locatePages();
    return;
  }
  Val cu_k = params.get("cu_seqlens_k");
  ragged_k_ = !ir.isNull(cu_k);
  const Rows k = locateRows(ir, cu_k, params.get("seqused_k"), params.get("seqlen_k"), batch_, ragged_k_);
  start_k_ = k.first;
  k_len = k.count;
}

/// Where the sequence's table is, and how many keys it has.
void Sequence::locatePages() {
  Val byte = batch_ * 4;
  auto element = [&](Val array, int64_t next = 0) {
    return ir_.load(ir_.i32(), ir_.offset(ir_.offset(array, byte), 4 * next), 4);
  };
  Val indptr = params_.get("page_indptr");
  const Rows entries = carry::ifElse( // the first one, and the slots of all
      ir_, ir_.isNull(indptr),
      [&] {
        return Rows{batch_ * params_.get("page_table_stride"), params_.get("seqlen_k")};
      },
      [&] {
        Val first = element(indptr);
        return Rows{ir_.toI64(first), (element(indptr, 1) - first) * params_.get("page_size")};
      });
  auto cut = [&](std::string_view name, Val keys, auto length) {
    Val array = params_.get(name);
    return carry::ifElse(
        ir_, ir_.isNull(array), [&] { return keys; },
        [&] { return ir_.max(ir_.i32(0), ir_.min(keys, length(array))); });
  };
  Val used =
      cut("cu_seqlens_k", entries.count, [&](Val array) { return element(array, 1) - element(array); });
  used = cut("seqused_k", used, [&](Val array) { return element(array); });
  leftpad_ = cut("leftpad_k", used, [&](Val array) { return element(array); });
  leftpad_ = ir_.select(ir_.isNull(params_.get("leftpad_k")), ir_.i32(0), leftpad_);
  k_len = used - leftpad_;
  Val table = params_.get("page_table");
  has_table_ = !ir_.isNull(table);
  table_ = ir_.offset(table, entries.first * 4);
  page_multiplier_ = ir_.toI64(params_.get("page_multiplier")) & 0xffffffff; // unsigned
  page_shift_ = ir_.toI64(params_.get("page_shift"));
}

Val Sequence::pool(Operand operand, Val head, int bytes) const {
  const OperandInfo &info = operandInfo(operand);
  return ir_.offset(params_.get(info.name), ir_.toI64(head) * params_.get(info.stride_h) * bytes);
}

Val Sequence::pagedRow(Operand operand, Val key, int bytes) const {
  const OperandInfo &info = operandInfo(operand);
  Val slot = this->slot(key), entry = this->entry(slot), page = this->page(entry);
  // Pools have more elements than an i32 counts.
  Val in_page = slot - ir_.toI32(entry) * params_.get("page_size");
  return (ir_.toI64(page) * params_.get(info.stride_b) + ir_.toI64(in_page) * params_.get(info.stride_s)) *
         bytes;
}

Val Sequence::entry(Val slot) const {
  Val product = ir_.toI64(slot) * page_multiplier_;
  return ir_.wrap(
      mlir::arith::ShRUIOp::create(ir_.builder, ir_.loc, product.value, page_shift_.value)); // PageDivisor
}

Val Sequence::page(Val entry) const {
  return carry::ifElse(
      ir_, has_table_, [&] { return ir_.load(ir_.i32(), ir_.offset(table_, entry * 4), 4); },
      [&] { return ir_.toI32(batch_); });
}

Val Sequence::rows(Operand operand, Val head, int bytes) const {
  const OperandInfo &info = operandInfo(operand);
  const bool keys = operandInfo(operand).side == Side::Key;
  assert(!(keys && paged_) && "paged keys have no first row");
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
  if (keys && paged_)
    return ir_.boolean(true);
  Val used = params_.get(keys ? "seqused_k" : "seqused_q");
  return (keys ? ragged_k_ : ragged_q_) | !ir_.isNull(used);
}

Val Sequence::lseLike(std::string_view name, Val head) const {
  const std::string text(name);
  Val start = ir_.select(ragged_q_, start_q_, batch_ * params_.get(text + "_stride_b"));
  return ir_.offset(params_.get(name), (start + ir_.toI64(head) * params_.get(text + "_stride_h")) * 4);
}

Val sequenceLengthsDiffer(Ir &ir, const ParamReader &params, KeyAddressing keys) {
  Val differ = ir.boolean(false);
  for (const char *name : {"cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k"})
    differ = differ | !ir.isNull(params.get(name));
  if (keys == KeyAddressing::Paged)
    for (const char *name : {"page_indptr", "leftpad_k"})
      differ = differ | !ir.isNull(params.get(name));
  return differ;
}

} // namespace flashplus
