// SPDX-License-Identifier: BSD-3-Clause
// Run-time parameters of each operation, as one table of fields. From the table come the C++ struct that the
// host fills, the offsets at which the generated code reads, and the layout text that goes into every key.
// A kernel takes one struct by value (GPU) or by pointer (CPU).
//
// X(type, name, count): Ptr and I64 fields first, 4-byte fields last, so that no table has padding inside;
// the groups at the end are in an order that leaves none either.
#pragma once

#include "spec/score.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace flashplus {

enum class ParamType { Ptr, I64, I32, F32 };

// Shapes: q (batch, seqlen_q, heads_q, head_dim_qk) or (total_q, heads_q, head_dim_qk) when ragged; k and v
// likewise with heads_k; o as q with head_dim_v. lse (batch, heads_q, seqlen_q) or (heads_q, total_q). All
// strides are in elements; the stride of the last dimension is 1.
//
//   cu_seqlens_q/_k  int32 (batch + 1), null for dense: sequence b owns rows [cu[b], cu[b + 1])
//   seqused_q/_k     int32 (batch), null for "all": only that many leading rows of each sequence are valid
//   partial_o        fp32 (num_splits, rows_q, heads_q, head_dim_v); rows_q = batch * seqlen_q or total_q
//   partial_lse      fp32 (num_splits, heads_q, rows_q); -inf for a share without a visible key
//   rows_q, rows_k   rows of the whole batch: batch * seqlen, or the ragged total; of paged keys all slots of
//                    the pool
//   tile_counter     int64[1] or null: key tiles visited, added up over all work items
//   work_counter     int32[2] or null: zero before and after every launch; blocks that loop over the items
//                    take their next one from the first (null: by position). Two launches at once need one
//                    each
//   seqlen_q/_k      lengths (dense) or upper bounds (ragged)
//   num_m_tiles      ceil(seqlen_q / tile_m)
//   num_work_items   batch * num_splits * (heads or groups of them) * num_m_tiles; decoded in
//                    templates/common/work.h
//   heads_per_section  heads of items (counted through the batch) whose work items are mixed, so that their
//                      keys stay in
//                    a cache together; at least 1
//   lse_empty        LSE written for a row that sees no key
//
// The last fields are groups (ParamGroup) that only some kernels have; they stand at the end, so that the
// others are what they are without them (paramLayout).
// Of kernels that clamp an index:
//   aux_last         last index of each dimension of the score's tensors, at most INT32_MAX
// Of kernels with keys = paged, whose k and v are (num_blocks, page_size, heads_k, head_dim) and seqlen_k the
// most keys that a sequence has room for:
//   page_size        slots of a page
//   page_multiplier  slot / page_size = slot * page_multiplier >> page_shift, for slots of int32
//   page_shift       (PageDivisor)
//   page_table       int32: pages. Null: sequence b has one page, b
//   page_indptr      int32 (batch + 1), or null: then the entries of sequence b begin at page_table[b *
//                    page_table_stride]; else they are those from page_table[page_indptr[b]] up to
//                    page_indptr[b + 1], which says what it has room for
//   leftpad_k        int32 (batch), or null for 0: leading slots of a sequence that hold no key; what
//                    seqused_k says includes them
// Of kernels with dropout (spec/dropout.h):
//   drop_...         Dropout::thresholds and Dropout::scale
//   rng_...          seed and offset: rng_state points to both (uint64[2]), or is null where they are
//                    rng_seed and rng_offset
// Of kernels with sinks, also of Combine:
//   sinks            (heads_q), of the spec's dtype
//   sink_in_lse      1: lse includes it
#define FLASHPLUS_FORWARD_PARAMS(X)                                                                          \
  X(Ptr, q, 1)                                                                                               \
  X(Ptr, k, 1)                                                                                               \
  X(Ptr, v, 1)                                                                                               \
  X(Ptr, o, 1)                                                                                               \
  X(Ptr, lse, 1)                                                                                             \
  X(Ptr, cu_seqlens_q, 1)                                                                                    \
  X(Ptr, cu_seqlens_k, 1)                                                                                    \
  X(Ptr, seqused_q, 1)                                                                                       \
  X(Ptr, seqused_k, 1)                                                                                       \
  X(Ptr, partial_o, 1)                                                                                       \
  X(Ptr, partial_lse, 1)                                                                                     \
  X(Ptr, tile_counter, 1)                                                                                    \
  X(Ptr, work_counter, 1)                                                                                    \
  X(Ptr, aux, kMaxScoreTensors)                                                                              \
  X(I64, q_stride_b, 1)                                                                                      \
  X(I64, q_stride_s, 1)                                                                                      \
  X(I64, q_stride_h, 1)                                                                                      \
  X(I64, k_stride_b, 1)                                                                                      \
  X(I64, k_stride_s, 1)                                                                                      \
  X(I64, k_stride_h, 1)                                                                                      \
  X(I64, v_stride_b, 1)                                                                                      \
  X(I64, v_stride_s, 1)                                                                                      \
  X(I64, v_stride_h, 1)                                                                                      \
  X(I64, o_stride_b, 1)                                                                                      \
  X(I64, o_stride_s, 1)                                                                                      \
  X(I64, o_stride_h, 1)                                                                                      \
  X(I64, lse_stride_b, 1)                                                                                    \
  X(I64, lse_stride_h, 1)                                                                                    \
  X(I64, rows_q, 1)                                                                                          \
  X(I64, rows_k, 1)                                                                                          \
  X(I64, aux_stride, kMaxScoreTensors *kMaxScoreTensorRank)                                                  \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, seqlen_k, 1)                                                                                        \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, heads_k, 1)                                                                                         \
  X(I32, window_left, 1)                                                                                     \
  X(I32, window_right, 1)                                                                                    \
  X(I32, num_m_tiles, 1)                                                                                     \
  X(I32, num_work_items, 1)                                                                                  \
  X(I32, heads_per_section, 1)                                                                               \
  X(I32, num_splits, 1)                                                                                      \
  X(F32, softmax_scale, 1)                                                                                   \
  X(F32, lse_empty, 1)                                                                                       \
  X(F32, scalar, kMaxScoreScalars)                                                                           \
  X(I32, aux_last, kMaxScoreTensors *kMaxScoreTensorRank)                                                    \
  X(I32, page_size, 1)                                                                                       \
  X(I32, page_multiplier, 1)                                                                                 \
  X(I32, page_shift, 1)                                                                                      \
  X(Ptr, page_table, 1)                                                                                      \
  X(Ptr, page_indptr, 1)                                                                                     \
  X(Ptr, leftpad_k, 1)                                                                                       \
  X(I64, page_table_stride, 1)                                                                               \
  X(Ptr, rng_state, 1)                                                                                       \
  X(I64, rng_seed, 1)                                                                                        \
  X(I64, rng_offset, 1)                                                                                      \
  X(I32, drop_thresholds, 4)                                                                                 \
  X(F32, drop_scale, 1)                                                                                      \
  X(I32, sink_in_lse, 1)                                                                                     \
  X(Ptr, sinks, 1)

// Combine: the same names as above where they mean the same. Work item = a block of `rows_per_item` rows of
// one (batch, head), items counted as ((b * heads_q + h) * num_row_blocks + block).
#define FLASHPLUS_COMBINE_PARAMS(X)                                                                          \
  X(Ptr, partial_o, 1)                                                                                       \
  X(Ptr, partial_lse, 1)                                                                                     \
  X(Ptr, o, 1)                                                                                               \
  X(Ptr, lse, 1)                                                                                             \
  X(Ptr, cu_seqlens_q, 1)                                                                                    \
  X(Ptr, seqused_q, 1)                                                                                       \
  X(I64, o_stride_b, 1)                                                                                      \
  X(I64, o_stride_s, 1)                                                                                      \
  X(I64, o_stride_h, 1)                                                                                      \
  X(I64, lse_stride_b, 1)                                                                                    \
  X(I64, lse_stride_h, 1)                                                                                    \
  X(I64, rows_q, 1)                                                                                          \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, num_row_blocks, 1)                                                                                  \
  X(I32, num_splits, 1)                                                                                      \
  X(F32, lse_empty, 1)                                                                                       \
  X(Ptr, sinks, 1)                                                                                           \
  X(I32, sink_in_lse, 1)

// Merge: o_a, o_b and o of one shape and type, lse_a, lse_b and lse (null: not wanted) of another, each with
// strides of its own; o and lse may be those of a side. Packed rows (total, heads, d) are one batch entry.
// Work items as Combine's.
#define FLASHPLUS_MERGE_PARAMS(X)                                                                            \
  X(Ptr, o_a, 1)                                                                                             \
  X(Ptr, lse_a, 1)                                                                                           \
  X(Ptr, o_b, 1)                                                                                             \
  X(Ptr, lse_b, 1)                                                                                           \
  X(Ptr, o, 1)                                                                                               \
  X(Ptr, lse, 1)                                                                                             \
  X(I64, o_a_stride_b, 1)                                                                                    \
  X(I64, o_a_stride_s, 1)                                                                                    \
  X(I64, o_a_stride_h, 1)                                                                                    \
  X(I64, o_b_stride_b, 1)                                                                                    \
  X(I64, o_b_stride_s, 1)                                                                                    \
  X(I64, o_b_stride_h, 1)                                                                                    \
  X(I64, o_stride_b, 1)                                                                                      \
  X(I64, o_stride_s, 1)                                                                                      \
  X(I64, o_stride_h, 1)                                                                                      \
  X(I64, lse_a_stride_b, 1)                                                                                  \
  X(I64, lse_a_stride_h, 1)                                                                                  \
  X(I64, lse_b_stride_b, 1)                                                                                  \
  X(I64, lse_b_stride_h, 1)                                                                                  \
  X(I64, lse_stride_b, 1)                                                                                    \
  X(I64, lse_stride_h, 1)                                                                                    \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, num_row_blocks, 1)

// Backward, all its steps: the same names as above where they mean the same. Every gradient has the shape of
// what it is the gradient of, and strides of its own; dout is that of o.
//
//   lse              read: as the forward wrote it, or that of a longer softmax of which these keys are a
//                    part
//   dlse             fp32, shape of lse, null for none: the gradient that reaches lse itself
//   delta            written, if not null, in the shape of lse: what row_delta is
//   row_lse          fp32 (heads_q, rows_q): lse log2(e), +inf for a row whose lse is not finite, so that its
//                    weights are 0
//   row_delta        fp32 (heads_q, rows_q): sum_d dout o - dlse; 0 for such a row
//   dq_parts         fp32 (num_splits, heads_q, rows_q, head_dim_qk): sums of dS K, still without
//                    softmax_scale, of each share of the keys (results = partial). With an algorithm that
//                    adds (ItemTraits::adds_dq) one part, laid out as templates/backward/rows/dq_sums.h says
//   dq_columns       head_dim_qk where there are parts: of so many BackwardDelta clears every row, on a GPU,
//                    whose algorithms add; else 0
//   num_m_tiles      tiles of the rows that the step's items are counted by: queries, or keys
//                    (ItemShape::side)
// Of the kernels that sum the gradients of a score's own inputs (score_grads), all fp32 and 0 before:
//   score_shares     on a CPU: sums of how many shares of the work there are
//   dscalar          of scalar i, one element
//   daux             of tensor i, compact in the order of its shape; where that is, daux_stride says
//   score_part       elements from a share's sums to the next one's
#define FLASHPLUS_BACKWARD_PARAMS(X)                                                                         \
  X(Ptr, q, 1)                                                                                               \
  X(Ptr, k, 1)                                                                                               \
  X(Ptr, v, 1)                                                                                               \
  X(Ptr, o, 1)                                                                                               \
  X(Ptr, lse, 1)                                                                                             \
  X(Ptr, dout, 1)                                                                                            \
  X(Ptr, dlse, 1)                                                                                            \
  X(Ptr, delta, 1)                                                                                           \
  X(Ptr, dq, 1)                                                                                              \
  X(Ptr, dk, 1)                                                                                              \
  X(Ptr, dv, 1)                                                                                              \
  X(Ptr, row_lse, 1)                                                                                         \
  X(Ptr, row_delta, 1)                                                                                       \
  X(Ptr, dq_parts, 1)                                                                                        \
  X(Ptr, cu_seqlens_q, 1)                                                                                    \
  X(Ptr, cu_seqlens_k, 1)                                                                                    \
  X(Ptr, seqused_q, 1)                                                                                       \
  X(Ptr, seqused_k, 1)                                                                                       \
  X(Ptr, tile_counter, 1)                                                                                    \
  X(Ptr, work_counter, 1)                                                                                    \
  X(Ptr, aux, kMaxScoreTensors)                                                                              \
  X(I64, q_stride_b, 1)                                                                                      \
  X(I64, q_stride_s, 1)                                                                                      \
  X(I64, q_stride_h, 1)                                                                                      \
  X(I64, k_stride_b, 1)                                                                                      \
  X(I64, k_stride_s, 1)                                                                                      \
  X(I64, k_stride_h, 1)                                                                                      \
  X(I64, v_stride_b, 1)                                                                                      \
  X(I64, v_stride_s, 1)                                                                                      \
  X(I64, v_stride_h, 1)                                                                                      \
  X(I64, o_stride_b, 1)                                                                                      \
  X(I64, o_stride_s, 1)                                                                                      \
  X(I64, o_stride_h, 1)                                                                                      \
  X(I64, dout_stride_b, 1)                                                                                   \
  X(I64, dout_stride_s, 1)                                                                                   \
  X(I64, dout_stride_h, 1)                                                                                   \
  X(I64, dq_stride_b, 1)                                                                                     \
  X(I64, dq_stride_s, 1)                                                                                     \
  X(I64, dq_stride_h, 1)                                                                                     \
  X(I64, dk_stride_b, 1)                                                                                     \
  X(I64, dk_stride_s, 1)                                                                                     \
  X(I64, dk_stride_h, 1)                                                                                     \
  X(I64, dv_stride_b, 1)                                                                                     \
  X(I64, dv_stride_s, 1)                                                                                     \
  X(I64, dv_stride_h, 1)                                                                                     \
  X(I64, lse_stride_b, 1)                                                                                    \
  X(I64, lse_stride_h, 1)                                                                                    \
  X(I64, dlse_stride_b, 1)                                                                                   \
  X(I64, dlse_stride_h, 1)                                                                                   \
  X(I64, delta_stride_b, 1)                                                                                  \
  X(I64, delta_stride_h, 1)                                                                                  \
  X(I64, rows_q, 1)                                                                                          \
  X(I64, rows_k, 1)                                                                                          \
  X(I64, dq_columns, 1)                                                                                      \
  X(I64, aux_stride, kMaxScoreTensors *kMaxScoreTensorRank)                                                  \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, seqlen_k, 1)                                                                                        \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, heads_k, 1)                                                                                         \
  X(I32, window_left, 1)                                                                                     \
  X(I32, window_right, 1)                                                                                    \
  X(I32, num_m_tiles, 1)                                                                                     \
  X(I32, num_work_items, 1)                                                                                  \
  X(I32, heads_per_section, 1)                                                                               \
  X(I32, num_splits, 1)                                                                                      \
  X(F32, softmax_scale, 1)                                                                                   \
  X(F32, scalar, kMaxScoreScalars)                                                                           \
  X(I32, aux_last, kMaxScoreTensors *kMaxScoreTensorRank)                                                    \
  X(Ptr, rng_state, 1)                                                                                       \
  X(I64, rng_seed, 1)                                                                                        \
  X(I64, rng_offset, 1)                                                                                      \
  X(I32, drop_thresholds, 4)                                                                                 \
  X(F32, drop_scale, 1)                                                                                      \
  X(I32, score_shares, 1)                                                                                    \
  X(Ptr, dscalar, kMaxScoreScalars)                                                                          \
  X(Ptr, daux, kMaxScoreTensors)                                                                             \
  X(I64, daux_stride, kMaxScoreTensors *kMaxScoreTensorRank)                                                 \
  X(I64, score_part, 1)

// Append: the same names as above where they mean the same. New row i of sequence b goes to slot s =
// seqused_k[b] + i of the cache, or to slot_mapping[its number among all new rows]. Slot s of a sequence is
// slot s % page_size of the page that entry s / page_size of its table names; k and v are (num_pages,
// page_size, heads_k, head_dim), whose stride_b is that of pages. A row whose slot has no page is dropped.
//
//   q                  read if rotary_dim is not 0,
//   q_rotated          written then: (rows_q, heads_q, head_dim_qk), compact
//   k_new, v_new       (batch, seqlen_new, heads_k, head_dim), or (total_new, heads_k, head_dim) with
//                      cu_seqlens_k_new, where seqlen_new is only a bound
//   lengths            int32 (batch), written: seqused_k and the new rows, as far as there is room;
//                      seqused_k alone where the first new row was dropped
//   rotary_cos, _sin   (rotary_rows, rotary_dim / 2) of q's dtype; rows past them turn nothing
//   rotary_seqlens     int32 (batch), null for seqused_k: the position of new row 0 and of query row 0
//   slot_mapping       int64 or null: page * page_size + slot in the page, or negative: dropped
//   page_table         int32: pages. Null: the page of sequence b is b, and it has one
//   page_indptr        int32 (batch + 1), or null. Sequence b's entries are page_table[b *
//                      page_table_stride] and on, page_entries of them, or page_table[page_indptr[b]] up
//                      to page_indptr[b + 1]
//   rotates_rows       1: query row i is turned by position + i; 0: every one by the position
//   interleaved        1: pairs (2i, 2i + 1) turn, else (i, i + rotary_dim / 2)
//   wide               1: every row of every tensor starts at a multiple of 16 bytes, and so does its half of
//                      rotary_dim
//   num_row_blocks     blocks of rows of one sequence: those of k_new, of v_new and, to be rotated, of q, of
//                      all heads, in this order
#define FLASHPLUS_APPEND_PARAMS(X)                                                                           \
  X(Ptr, q, 1)                                                                                               \
  X(Ptr, q_rotated, 1)                                                                                       \
  X(Ptr, k_new, 1)                                                                                           \
  X(Ptr, v_new, 1)                                                                                           \
  X(Ptr, k, 1)                                                                                               \
  X(Ptr, v, 1)                                                                                               \
  X(Ptr, lengths, 1)                                                                                         \
  X(Ptr, rotary_cos, 1)                                                                                      \
  X(Ptr, rotary_sin, 1)                                                                                      \
  X(Ptr, rotary_seqlens, 1)                                                                                  \
  X(Ptr, cu_seqlens_q, 1)                                                                                    \
  X(Ptr, cu_seqlens_k_new, 1)                                                                                \
  X(Ptr, seqused_q, 1)                                                                                       \
  X(Ptr, seqused_k, 1)                                                                                       \
  X(Ptr, slot_mapping, 1)                                                                                    \
  X(Ptr, page_table, 1)                                                                                      \
  X(Ptr, page_indptr, 1)                                                                                     \
  X(I64, q_stride_b, 1)                                                                                      \
  X(I64, q_stride_s, 1)                                                                                      \
  X(I64, q_stride_h, 1)                                                                                      \
  X(I64, k_new_stride_b, 1)                                                                                  \
  X(I64, k_new_stride_s, 1)                                                                                  \
  X(I64, k_new_stride_h, 1)                                                                                  \
  X(I64, v_new_stride_b, 1)                                                                                  \
  X(I64, v_new_stride_s, 1)                                                                                  \
  X(I64, v_new_stride_h, 1)                                                                                  \
  X(I64, k_stride_b, 1)                                                                                      \
  X(I64, k_stride_s, 1)                                                                                      \
  X(I64, k_stride_h, 1)                                                                                      \
  X(I64, v_stride_b, 1)                                                                                      \
  X(I64, v_stride_s, 1)                                                                                      \
  X(I64, v_stride_h, 1)                                                                                      \
  X(I64, rotary_cos_stride, 1)                                                                               \
  X(I64, rotary_sin_stride, 1)                                                                               \
  X(I64, page_table_stride, 1)                                                                               \
  X(I32, batch, 1)                                                                                           \
  X(I32, seqlen_q, 1)                                                                                        \
  X(I32, seqlen_new, 1)                                                                                      \
  X(I32, heads_q, 1)                                                                                         \
  X(I32, heads_k, 1)                                                                                         \
  X(I32, num_pages, 1)                                                                                       \
  X(I32, page_size, 1)                                                                                       \
  X(I32, page_entries, 1)                                                                                    \
  X(I32, rotary_dim, 1)                                                                                      \
  X(I32, rotary_rows, 1)                                                                                     \
  X(I32, rotates_rows, 1)                                                                                    \
  X(I32, interleaved, 1)                                                                                     \
  X(I32, wide, 1)                                                                                            \
  X(I32, num_row_blocks, 1)

namespace detail {
template <ParamType> struct ParamCType;
template <> struct ParamCType<ParamType::Ptr> {
  using type = void *;
};
template <> struct ParamCType<ParamType::I64> {
  using type = int64_t;
};
template <> struct ParamCType<ParamType::I32> {
  using type = int32_t;
};
template <> struct ParamCType<ParamType::F32> {
  using type = float;
};
template <ParamType T, int N> struct ParamField {
  using type = typename ParamCType<T>::type[N];
};
template <ParamType T> struct ParamField<T, 1> {
  using type = typename ParamCType<T>::type;
};
} // namespace detail

/// One field of a params struct, for code generators and binders.
struct ParamInfo {
  std::string_view name;
  ParamType type;
  int count;
  size_t offset; ///< Bytes from the start of the struct.
};

namespace detail {
template <class Params> struct ParamTable;
}

/// The fields of a params struct that FLASHPLUS_PARAMS defined, in order.
template <class Params> constexpr std::span<const ParamInfo> paramTable() {
  return detail::ParamTable<Params>::rows;
}

#define FLASHPLUS_PARAM_MEMBER(TYPE, NAME, COUNT)                                                            \
  typename detail::ParamField<ParamType::TYPE, COUNT>::type NAME = {};
#define FLASHPLUS_PARAM_ROW(TYPE, NAME, COUNT) {#NAME, ParamType::TYPE, COUNT, offsetof(Struct, NAME)},
#define FLASHPLUS_PARAM_BYTES(TYPE, NAME, COUNT) +sizeof(detail::ParamCType<ParamType::TYPE>::type) * (COUNT)

/// Defines struct NAME and its table from a list of fields. No padding inside, at most some at the end: two
/// compilers cannot disagree on the offsets.
#define FLASHPLUS_PARAMS(NAME, LIST)                                                                         \
  struct NAME {                                                                                              \
    LIST(FLASHPLUS_PARAM_MEMBER)                                                                             \
  };                                                                                                         \
  template <> struct detail::ParamTable<NAME> {                                                              \
    using Struct = NAME;                                                                                     \
    static constexpr ParamInfo rows[] = {LIST(FLASHPLUS_PARAM_ROW)};                                         \
  };                                                                                                         \
  static_assert(sizeof(NAME) - (0 LIST(FLASHPLUS_PARAM_BYTES)) < 8)

FLASHPLUS_PARAMS(ForwardParams, FLASHPLUS_FORWARD_PARAMS);
FLASHPLUS_PARAMS(CombineParams, FLASHPLUS_COMBINE_PARAMS);
FLASHPLUS_PARAMS(MergeParams, FLASHPLUS_MERGE_PARAMS);
FLASHPLUS_PARAMS(BackwardParams, FLASHPLUS_BACKWARD_PARAMS);
FLASHPLUS_PARAMS(AppendParams, FLASHPLUS_APPEND_PARAMS);

/// What of a params struct a kernel takes: its first `size` bytes, which hold `fields`.
struct ParamLayout {
  std::span<const ParamInfo> fields;
  size_t size;
};
/// Fields at the end of a table that only some kernels have; a set of bits.
enum ParamGroup : unsigned {
  kIndexParams = 1,     ///< aux_last, of kernels that clamp an index (ScoreExpr::clampsIndices).
  kPagedParams = 2,     ///< From page_size on, of kernels with keys = paged.
  kDropoutParams = 4,   ///< drop_... and rng_..., of kernels with dropout.
  kScoreGradParams = 8, ///< From score_shares on, of kernels with score_grads.
  kSinkParams = 16,     ///< sinks and sink_in_lse, of kernels with sinks.
};
/// The layout of kernels of a params struct whose whole table is `fields`: up to the last field that is in no
/// group or in one of `groups`. All fields are where they are in the whole struct.
ParamLayout paramLayout(std::span<const ParamInfo> fields, size_t size, unsigned groups);

/// slot / page_size of int32 slots by a product and a shift.
struct PageDivisor {
  int32_t page_size, multiplier, shift; ///< The multiplier is unsigned.

  /// `page_size` is from 1 to INT32_MAX.
  static constexpr PageDivisor of(int32_t page_size) {
    int bits = 0; // the least with page_size <= 2^bits
    while (bits < 31 && page_size > int64_t(1) << bits)
      ++bits;
    // With m = floor(2^(31 + bits) / p) + 1, m p exceeds 2^(31 + bits) by at most p <= 2^bits: too little to
    // lift a quotient of a slot below 2^31.
    const int shift = 31 + bits;
    return {page_size, int32_t(uint32_t((uint64_t(1) << shift) / uint64_t(page_size) + 1)), shift};
  }
  constexpr int32_t page(int32_t slot) const {
    return int32_t(uint64_t(uint32_t(slot)) * uint32_t(multiplier) >> shift);
  }
};

/// "q:ptr@0 k:ptr@8 ... size=NNN": goes into cache keys, so that code and host never disagree on a layout.
std::string paramLayoutText(std::span<const ParamInfo> table, size_t size);

} // namespace flashplus
