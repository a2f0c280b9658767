// SPDX-License-Identifier: BSD-3-Clause
// The tensors of a call: all on one device; q, k, v and whatever else has rows like theirs of sizes that
// agree. For the arguments of every operation; nothing on the good path allocates.
#pragma once

#include "runtime/arguments/tensor_view.h"
#include "spec/fields.h"

#include <span>

namespace flashplus {

/// Reads the tensors of one call, the first of which (q, where there is one) says on which device they are.
class TensorReader {
public:
  explicit TensorReader(DataPointers data) : data_(data) {}

  /// TensorView::read, and InvalidArgument for a tensor that is not on the first one's device.
  Status read(const char *name, const DLTensor *source, TensorView &out);
  DLDevice device() const { return device_; } ///< Type 0 before the first tensor.
  /// Its elements may be looked at.
  bool readsData() const { return data_ == DataPointers::Required; } ///< Tensors have data.
  bool onHost(const TensorView &t) const { return device_.device_type == kDLCPU && t.data; }

private:
  // Out of the way of read(), as what other checks say when they fail.
  [[gnu::noinline]] Status unknownDevice(const char *name, DLDevice found) const;
  [[gnu::noinline]] Status wrongDevice(const char *name, DLDevice found) const;

  const DataPointers data_;
  const char *first_ = ""; ///< The first one's name.
  DLDevice device_{};
};

/// The storage type of a tensor of rows: fp16, bf16 or fp32.
Status readDType(const TensorView &t, DType &out);

/// Sizes that the tensors of a call share.
struct TensorSizes {
  bool ragged = false; ///< With cu_seqlens: tensors are (total, heads, head_dim) instead of (batch, seqlen,
                       ///< heads, head_dim).
  bool cache = false;  ///< k and v are (num_blocks, page_size, heads_k, head_dim), ragged or not.
  bool uneven_q = false, uneven_k = false; ///< A sequence may have fewer rows than rows_q, rows_k.
  int64_t batch = 0;                       ///< Of a ragged call: known once its lengths are checked.
  int64_t rows_q = 0, rows_k = 0;          ///< Of a batch entry; ragged: of all of them; of a cache: the most
                                           ///< that a sequence has room for.
  int64_t heads_q = 0, heads_k = 0;
  int64_t head_dim_qk = 0, head_dim_v = 0;

  int64_t rows(Side side) const { return side == Side::Query ? rows_q : rows_k; }
  int64_t heads(Side side) const { return side == Side::Query ? heads_q : heads_k; }
};

/// A tensor of rows.
struct OperandArg {
  const char *name;
  Operand like; ///< Whose rows, heads and head dim it has: dk is like k.
  const DLTensor *source;
  bool written = false;
  TensorView view{}; ///< Filled in by checkOperands.
};

/// Reads and checks `operands`, the first of which are q, k and v: dtypes, ranks, strides and shapes. Sets
/// dtype, head dims and alignment of `spec`, and `sizes` but for the batch of a ragged call and the rows of a
/// cache; sizes.cache is the caller's.
Status checkOperands(TensorReader &reader, std::span<OperandArg> operands, bool has_cu_seqlens_q,
                     bool has_cu_seqlens_k, SpecFields &spec, TensorSizes &sizes);

/// A statistic a query row and head, such as lse: fp32 (batch, heads_q, seqlen_q), or (heads_q, total_q)
/// where ragged.
Status checkRowStatistic(TensorReader &reader, const char *name, const DLTensor *source, bool written,
                         const TensorSizes &sizes, TensorView &out);

/// Puts into an operand's params where its rows are.
inline void setRows(const TensorView &t, bool ragged, void *&data, int64_t &stride_b, int64_t &stride_s,
                    int64_t &stride_h) {
  const int first = ragged ? 0 : 1;
  data = t.data;
  stride_b = ragged ? 0 : t.strides[0];
  stride_s = t.strides[first];
  stride_h = t.strides[first + 1];
}

/// The same for a statistic.
inline void setRowStatistic(const TensorView &t, bool ragged, void *&data, int64_t &stride_b,
                            int64_t &stride_h) {
  data = t.data;
  stride_b = ragged ? 0 : t.strides[0];
  stride_h = t.strides[ragged ? 0 : 1];
}

} // namespace flashplus
