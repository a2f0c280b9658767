// SPDX-License-Identifier: BSD-3-Clause
// Attention on the host: in fp64, and as a model that rounds only where a kernel must. What results are
// judged by.
#pragma once

#include "spec/dropout.h"
#include "spec/dtype.h"
#include "spec/score.h"

#include <array>
#include <cstdint>
#include <vector>

namespace flashplus::reference {

/// In elements; the last dimension is contiguous. `b` is ignored when ragged.
struct Strides {
  int64_t b = 0, s = 0, h = 0;
};

struct AuxTensor {
  const float *data = nullptr;
  std::array<int64_t, kMaxScoreTensorRank> strides = {}; ///< In elements, one per index.
  std::array<int64_t, kMaxScoreTensorRank> shape = {};   ///< At least 1 where it is read; indices are clamped
                                                         ///< to it.
};

/// As flashplus_forward_args, with everything in host memory. Pointers are borrowed.
struct Problem {
  DType dtype = DType::F32;
  int64_t batch = 0, seqlen_q = 0, seqlen_k = 0; ///< Lengths; not read where cu_seqlens are given.
  int64_t total_q = 0;                           ///< Query rows of a ragged problem.
  int64_t total_k = 0;                           ///< Its key rows; only the backward reads them.
  int64_t heads_q = 0, heads_k = 0, head_dim_qk = 0, head_dim_v = 0;
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  Strides q_strides, k_strides, v_strides;
  const int32_t *cu_seqlens_q = nullptr, *cu_seqlens_k = nullptr; ///< (batch + 1), both or none.
  const int32_t *seqused_q = nullptr, *seqused_k = nullptr;       ///< (batch) or null.
  int64_t window_left = -1, window_right = -1;                    ///< -1 = unbounded; causal is right = 0.
  float softmax_scale = 1;
  float lse_empty = 0; ///< LSE of a row that sees no key; its o is 0.
  ScoreExpr score;     ///< Applied first, then softcap, then ALiBi.
  std::vector<float> scalars;       ///< One per score.scalars.
  std::vector<AuxTensor> tensors;   ///< One per score.tensors.
  float softcap = 0;                ///< > 0: softcap * tanh(s / softcap).
  const float *alibi_slopes = nullptr; ///< (heads_q), or (batch, heads_q) with alibi_per_batch.
  bool alibi_per_batch = false;
  Dropout dropout = {}; ///< Of the probabilities, by the mask of (rng_seed, rng_offset).
  uint64_t rng_seed = 0, rng_offset = 0;
  const void *sinks = nullptr; ///< (heads_q) of sink_dtype, or null.
  DType sink_dtype = DType::F32;
  bool lse_without_sinks = false;

  int64_t rowsQ() const { return cu_seqlens_q ? total_q : batch * seqlen_q; }
  int64_t rowsK() const { return cu_seqlens_q ? total_k : batch * seqlen_k; }
};

/// Rows are counted over the batch: b * seqlen_q + i, or cu_seqlens_q[b] + i.
struct Output {
  std::vector<double> o;      ///< (rows, heads_q, head_dim_v)
  std::vector<double> lse;    ///< (rows, heads_q), natural logarithm
  std::vector<uint8_t> valid; ///< (rows): 1 for a row that belongs to a sequence and is in use.
  double max_score = 0;       ///< Largest |final score| of a visible key, or |sink|.
};

/// Everything in fp64. `threads` 0 = all processors.
Output attentionFp64(const Problem &problem, int threads = 0);

/// q k^T, scale, score and exponential in fp32; P rounded once to the storage type for the second product,
/// its sum taken before that; o accumulated in fp32 and rounded once. No tiling. `shift` is subtracted from
/// the exponents: the result is the same but for another set of roundings.
Output attentionStorageModel(const Problem &problem, double shift = 0, int threads = 0);

} // namespace flashplus::reference
