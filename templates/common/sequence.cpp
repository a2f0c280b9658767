// SPDX-License-Identifier: BSD-3-Clause
#include "templates/common/sequence.h"

namespace flashplus {

WorkItem decodeWorkItem(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val item, HeadsOfItem heads_of_item,
                        Val m_tiles) {
  WorkItem w;
  Val items = params.get("num_work_items"), section_heads = params.get("heads_per_section");
  if (m_tiles)
    items = items / params.get("num_m_tiles") * m_tiles;
  else
    m_tiles = params.get("num_m_tiles");
  Val section_items = m_tiles * section_heads;
  Val section = item / section_items, inside = item % section_items;
  // The last section may be smaller.
  Val present = ir.min(section_heads, (items - section * section_items) / m_tiles);
  w.m = m_tiles - inside / present - 1.0;
  Val rest = section * section_heads + inside % present;
  w.group = params.get("heads_q") / params.get("heads_k");
  Val heads = params.get(heads_of_item == HeadsOfItem::One ? "heads_q" : "heads_k");
  if (heads_of_item == HeadsOfItem::One) {
    w.head = rest % heads;
    w.head_k = w.head / w.group;
  } else if (heads_of_item == HeadsOfItem::Packed) {
    w.head_k = rest % heads;
    w.head = w.head_k * w.group;
  } else {
    Val key_heads = heads;
    heads = items / (params.get("batch") * params.get("num_splits") * m_tiles);
    Val size = (key_heads + heads - 1.0) / heads;
    w.head_k = rest % heads * size;
    w.head = w.head_k * w.group;
    w.key_heads = ir.max(ir.i32(0), ir.min(size, key_heads - w.head_k));
  }
  rest = rest / heads;
  if (spec.sharesKeys()) {
    Val splits = params.get("num_splits");
    w.split = rest % splits;
    rest = rest / splits;
  } else {
    w.split = ir.i32(0);
  }
  w.batch = rest;
  return w;
}

namespace {

/// {first row, length} of one side of a batch entry.
std::pair<Val, Val> locateRows(Ir &ir, Val cu_seqlens, Val seqused, Val dense_length, Val batch, Val ragged) {
  Val byte = batch * 4.0;
  Vals found = ir.ifElse(
      ragged,
      [&]() -> Vals {
        Val start = ir.load(ir.i32(), ir.offset(cu_seqlens, byte), 4);
        Val end = ir.load(ir.i32(), ir.offset(ir.offset(cu_seqlens, byte), 4), 4);
        return {start, end - start};
      },
      [&]() -> Vals { return {ir.i32(0), dense_length}; });
  Vals used = ir.ifElse(
      ir.isNull(seqused), [&]() -> Vals { return {found[1]}; },
      [&]() -> Vals {
        return {ir.max(ir.i32(0), ir.min(found[1], ir.load(ir.i32(), ir.offset(seqused, byte), 4)))};
      });
  return {ir.toI64(found[0]), used[0]};
}

} // namespace

Sequence::Sequence(Ir &ir, const ParamReader &params, Val batch, bool with_keys)
    : ir_(ir), params_(params), batch_(ir.toI64(batch)) {
  auto notNull = [&](Val pointer) { return ir.select(ir.isNull(pointer), ir.boolean(false), ir.boolean(true)); };
  Val cu_q = params.get("cu_seqlens_q");
  ragged_q_ = notNull(cu_q);
  std::tie(start_q_, q_len) =
      locateRows(ir, cu_q, params.get("seqused_q"), params.get("seqlen_q"), batch_, ragged_q_);
  first_row_ = ir.select(ragged_q_, start_q_, batch_ * ir.toI64(params.get("seqlen_q")));
  if (!with_keys)
    return;
  Val cu_k = params.get("cu_seqlens_k");
  ragged_k_ = notNull(cu_k);
  std::tie(start_k_, k_len) =
      locateRows(ir, cu_k, params.get("seqused_k"), params.get("seqlen_k"), batch_, ragged_k_);
}

Val Sequence::rows(std::string_view tensor, Val head, int bytes) const {
  const std::string name(tensor);
  const bool keys = tensor == "k" || tensor == "v";
  auto stride = [&](const char *which) { return params_.get(name + "_stride_" + which); };
  Val start = ir_.select(keys ? ragged_k_ : ragged_q_, (keys ? start_k_ : start_q_) * stride("s"),
                         batch_ * stride("b"));
  Val elements = start + ir_.toI64(head) * stride("h");
  return ir_.offset(params_.get(tensor), elements * double(bytes));
}

std::pair<Val, Val> Sequence::mapCoordinates(std::string_view tensor) const {
  const bool keys = tensor == "k" || tensor == "v";
  Val ragged = keys ? ragged_k_ : ragged_q_;
  return {ir_.toI32(keys ? start_k_ : start_q_), ir_.select(ragged, ir_.i32(0), ir_.toI32(batch_))};
}

Val Sequence::hasRowsBehind(std::string_view tensor) const {
  const bool keys = tensor == "k" || tensor == "v";
  Val used = params_.get(keys ? "seqused_k" : "seqused_q");
  return (keys ? ragged_k_ : ragged_q_) | (ir_.isNull(used) == ir_.boolean(false));
}

Val Sequence::lse(Val head) const {
  Val start = ir_.select(ragged_q_, start_q_, batch_ * params_.get("lse_stride_b"));
  return ir_.offset(params_.get("lse"), (start + ir_.toI64(head) * params_.get("lse_stride_h")) * 4.0);
}

Mask::Mask(Ir &ir, const ParamReader &params, const KernelSpec &spec, const Sequence &sequence)
    : ir_(ir), bounded_left_(spec.bounded_left), bounded_right_(spec.bounded_right), k_len_(sequence.k_len),
      diagonal_(sequence.k_len - sequence.q_len) {
  if (bounded_left_)
    left_ = diagonal_ - params.get("window_left");
  if (bounded_right_)
    right_ = diagonal_ + params.get("window_right") + 1.0;
}

Val Mask::lo(Val row) const {
  if (!bounded_left_)
    return ir_.i32(0);
  return ir_.max(ir_.i32(0), ir_.min(k_len_, row + left_));
}

Val Mask::hi(Val row) const {
  if (!bounded_right_)
    return k_len_;
  return ir_.max(ir_.i32(0), ir_.min(k_len_, row + right_));
}

Mask::Tiles Mask::tiles(Val first, Val last, int tile_n, Val split, Val num_splits) const {
  // Both ends move up with the row, by at most one key a row, so the union over the rows has no gap.
  Val begin_key = lo(first), end_key = hi(last);
  Val begin = begin_key / double(tile_n);
  Val end = ir_.select(begin_key < end_key, ir_.ceilDiv(end_key, tile_n), begin);
  if (!num_splits)
    return {begin, end};
  Val share = (end - begin + num_splits - 1.0) / num_splits;
  Val share_begin = ir_.min(begin + split * share, end);
  return {share_begin, ir_.min(share_begin + share, end)};
}

Val Mask::needsMask(Val first, Val last, Val key, int tile_n) const {
  return (key < lo(last)) | (key + double(tile_n) > hi(first));
}

} // namespace flashplus
