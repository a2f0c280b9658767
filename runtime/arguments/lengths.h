// SPDX-License-Identifier: BSD-3-Clause
// How many rows the sequences of a call have: dense, packed (cu_seqlens) or partly in use (seqused). For the
// arguments of every operation that has these fields.
#pragma once

#include "runtime/arguments/operands.h"
#include "runtime/arguments/problem.h"

namespace flashplus {

/// The fields of a caller's struct that say so.
struct LengthArgs {
  const DLTensor *cu_seqlens_q, *cu_seqlens_k, *seqused_q, *seqused_k;
  int64_t max_seqlen_q, max_seqlen_k;
};
template <class Args> LengthArgs lengthArgs(const Args &a) {
  return {a.cu_seqlens_q, a.cu_seqlens_k, a.seqused_q, a.seqused_k, a.max_seqlen_q, a.max_seqlen_k};
}

/// Arrays on the device; null for those that the call has not.
struct LengthArrays {
  void *cu_seqlens_q = nullptr, *cu_seqlens_k = nullptr, *seqused_q = nullptr, *seqused_k = nullptr;
};

/// The values of cu_seqlens, where they can be read: from 0, not decreasing, to `total` at most, no sequence
/// longer than `longest`, which is the argument `longest_name`.
Status checkCumulative(const TensorReader &reader, const TensorView &t, int64_t total, int64_t longest,
                       const char *longest_name);

/// Checks them (the values, too, where they can be read), completes `sizes`, and sets the problem's `bounds`,
/// without a window, and `empty`.
Status checkLengths(TensorReader &reader, const LengthArgs &args, TensorSizes &sizes,
                    AttentionProblem &problem, LengthArrays &out);

/// Params of the names that spec/params.h gives them.
template <class Params>
void setLengths(const LengthArrays &arrays, const TensorSizes &sizes, const Bounds &bounds, Params &p) {
  p.cu_seqlens_q = arrays.cu_seqlens_q;
  p.cu_seqlens_k = arrays.cu_seqlens_k;
  p.seqused_q = arrays.seqused_q;
  p.seqused_k = arrays.seqused_k;
  p.rows_q = bounds.total_q;
  p.rows_k = sizes.ragged || sizes.cache ? sizes.rows_k : sizes.batch * sizes.rows_k;
  p.batch = int32_t(bounds.batch);
  p.seqlen_q = int32_t(bounds.max_seqlen_q);
  p.seqlen_k = int32_t(bounds.max_seqlen_k);
  p.heads_q = int32_t(bounds.heads_q);
  p.heads_k = int32_t(bounds.heads_k);
}

} // namespace flashplus
