// SPDX-License-Identifier: BSD-3-Clause
#include "templates/append/rows.h"

#include "ir/carried.h"
#include "spec/kernel_spec.h"

namespace flashplus {
namespace {

/// A run of rows or of entries of a table.
struct Run {
  Val first, count;
  void fields(auto &&each) { each(first, count); }
};

/// [offsets[b], offsets[b + 1]) of an int32 array, or `dense` where it is null. `first` is an i64.
Run runOf(Ir &ir, Val offsets, Val batch, const Run &dense) {
  return carry::ifElse(
      ir, ir.isNull(offsets), [&] { return dense; },
      [&] {
        Val at = ir.offset(offsets, batch * 4);
        Val first = ir.load(ir.i32(), at, 4);
        return Run{ir.toI64(first), ir.load(ir.i32(), ir.offset(at, 4), 4) - first};
      });
}

/// Element `batch` of an int32 array, or `otherwise` where it is null.
Val elementOr(Ir &ir, Val array, Val batch, Val otherwise) {
  return carry::ifElse(
      ir, ir.isNull(array), [&] { return otherwise; },
      [&] { return ir.load(ir.i32(), ir.offset(array, batch * 4), 4); });
}

} // namespace

AppendRows::AppendRows(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val batch)
    : ir_(ir), params_(params), bytes_(dtypeBytes(spec.dtype)), head_dim_qk_(spec.head_dim_qk),
      head_dim_v_(spec.head_dim_v), batch_(ir.toI64(batch)),
      queries_(ir, params, batch, /*keys=*/std::nullopt) {
  const Run fresh = runOf(ir, params.get("cu_seqlens_k_new"), batch_, {ir.i64(0), params.get("seqlen_new")});
  first_new_ = fresh.first;
  count_ = fresh.count;
  used_ = ir.max(ir.i32(0), ir.load(ir.i32(), ir.offset(params.get("seqused_k"), batch_ * 4), 4));
  position_ = elementOr(ir, params.get("rotary_seqlens"), batch_, used_);
  const Run entries = runOf(ir, params.get("page_indptr"), batch_,
                            {batch_ * params.get("page_table_stride"), params.get("page_entries")});
  first_entry_ = entries.first;
  entries_ = entries.count;
  key_rows_ = count_ * params.get("heads_k");
  query_rows_ = ir.select(params.get("rotary_dim") == 0, ir.i32(0), queries_.q_len * params.get("heads_q"));
}

MovedRow AppendRows::at(Val row) const {
  Val first_query = key_rows_ * 2;
  return carry::ifElse(
      ir_, row < first_query, [&] { return newRow(row); }, [&] { return query(row - first_query); });
}

Val AppendRows::table(std::string_view name, Val position) const {
  Val stride = params_.get(std::string(name) + "_stride");
  return ir_.offset(params_.get(name), ir_.toI64(position) * stride * bytes_);
}

Val AppendRows::rotatedColumns(Val position) const {
  Val inside = (ir_.i32(0) <= position) & (position < params_.get("rotary_rows"));
  return ir_.select(inside, params_.get("rotary_dim"), ir_.i32(0));
}

MovedRow AppendRows::query(Val row) const {
  Val heads = params_.get("heads_q"), head = row % heads, i = row / heads;
  Val i64 = ir_.toI64(i);
  Val to = (queries_.firstRow() + i64) * ir_.toI64(heads) + ir_.toI64(head);
  Val position = position_ + ir_.select(params_.get("rotates_rows") == 0, ir_.i32(0), i);
  return {.from =
              ir_.offset(queries_.rows(Operand::Q, head, bytes_), i64 * (params_.get("q_stride_s") * bytes_)),
          .to = ir_.offset(params_.get("q_rotated"), to * (head_dim_qk_ * bytes_)),
          .stored = ir_.boolean(true),
          .columns = ir_.i32(head_dim_qk_),
          .rotated = rotatedColumns(position),
          .position = position};
}

MovedRow AppendRows::newRow(Val row) const {
  Val value = row >= key_rows_;
  Val number = ir_.select(value, row - key_rows_, row);
  Val heads = params_.get("heads_k"), head = ir_.toI64(number % heads), token = number / heads;
  auto either = [&](const char *of_value, const char *of_key) {
    return ir_.select(value, params_.get(of_value), params_.get(of_key));
  };
  Val ragged = !ir_.isNull(params_.get("cu_seqlens_k_new"));
  Val entry = ir_.select(ragged, ir_.i64(0), batch_ * either("v_new_stride_b", "k_new_stride_b"));
  Val from = entry + (first_new_ + ir_.toI64(token)) * either("v_new_stride_s", "k_new_stride_s") +
             head * either("v_new_stride_h", "k_new_stride_h");
  const Place p = place(token);
  Val to = p.page * either("v_stride_b", "k_stride_b") + p.slot * either("v_stride_s", "k_stride_s") +
           head * either("v_stride_h", "k_stride_h");
  Val position = position_ + token;
  return {.from = ir_.offset(either("v_new", "k_new"), from * bytes_),
          .to = ir_.offset(either("v", "k"), to * bytes_),
          .stored = p.exists,
          .columns = ir_.select(value, ir_.i32(head_dim_v_), ir_.i32(head_dim_qk_)),
          .rotated = ir_.select(value, ir_.i32(0), rotatedColumns(position)),
          .position = position};
}

AppendRows::Place AppendRows::placeInTable(Val slot) const {
  Val size = params_.get("page_size"), entry = slot / size;
  Val room = (ir_.i32(0) <= slot) & (entry < entries_); // slot < 0: the sum went past INT32_MAX
  Val table = params_.get("page_table");
  Val page = carry::ifElse(
      ir_, room & !ir_.isNull(table),
      [&] { return ir_.load(ir_.i32(), ir_.offset(table, (first_entry_ + ir_.toI64(entry)) * 4), 4); },
      [&] { return ir_.toI32(batch_); });
  Val exists = room & (ir_.i32(0) <= page) & (page < params_.get("num_pages"));
  return {ir_.toI64(page), ir_.toI64(slot % size), exists};
}

AppendRows::Place AppendRows::place(Val token) const {
  Val mapping = params_.get("slot_mapping");
  return carry::ifElse(
      ir_, ir_.isNull(mapping), [&] { return placeInTable(used_ + token); },
      [&] {
        Val before = ir_.select(ir_.isNull(params_.get("cu_seqlens_k_new")),
                                batch_ * ir_.toI64(params_.get("seqlen_new")), first_new_);
        Val slot = ir_.load(ir_.i64(), ir_.offset(mapping, (before + ir_.toI64(token)) * 8), 8);
        Val size = ir_.toI64(params_.get("page_size"));
        Val slots = ir_.toI64(params_.get("num_pages")) * size;
        Val exists = (ir_.i64(0) <= slot) & (slot < slots);
        Val held = ir_.select(exists, slot, ir_.i64(0));
        return Place{held / size, held % size, exists};
      });
}

void AppendRows::storeLength() const {
  Val counted = carry::ifElse(
      ir_, count_ <= 0, [&] { return ir_.i32(0); },
      [&] { return ir_.select(place(ir_.i32(0)).exists, count_, ir_.i32(0)); });
  // In 64 bits: neither the sum nor the room need fit an int32.
  Val room = ir_.toI64(entries_) * ir_.toI64(params_.get("page_size"));
  Val wanted = ir_.toI64(used_) + ir_.toI64(counted);
  Val length = ir_.select(counted == 0, ir_.toI64(used_), ir_.min(wanted, room));
  ir_.store(ir_.toI32(length), ir_.offset(params_.get("lengths"), batch_ * 4), 4);
}

} // namespace flashplus
