// SPDX-License-Identifier: BSD-3-Clause
// The backward pass on the host: in fp64, and as a model that rounds only where a kernel must.
//
// With s = scale q.k, w the final score, z the mask of dropout and r its scale:
//   p     = exp(w - lse), 0 for keys that the row does not see, and for rows whose lse is infinite
//   dV    = (p z r)^T dO
//   delta = rowsum(dO o) - dlse
//   g     = p (z r dO V^T - delta)            the derivative by w
//   ds    = g dw/ds
//   dQ    = scale ds K,   dK = scale ds^T Q   dK and dV summed over the query heads of a key head
//   d scalar = sum g dw/dscalar
//   d element of a tensor = sum g dw/delement over all scores that read it
#pragma once

#include "reference/attention.h"

namespace flashplus::reference {

struct BackwardProblem {
  Problem forward;            ///< Ragged ones need total_k.
  const void *dout = nullptr; ///< As o, of the problem's dtype.
  Strides dout_strides;
  const double *dlse = nullptr; ///< (rows, heads_q), as Output::lse, or null for zeros.
  /// What the forward wrote, as Output's; null: worked out here. A shard of a context-parallel problem passes
  /// those of all keys.
  const double *o = nullptr, *lse = nullptr;
};

/// Derivatives of the loss. Rows are counted over the batch as Output's; a kernel's may leave vectors empty,
/// which then are not compared.
struct Gradients {
  std::vector<double> dq; ///< (rows, heads_q, head_dim_qk)
  std::vector<double> dk; ///< (key rows, heads_k, head_dim_qk); rows b * seqlen_k + j, or cu_seqlens_k[b] + j
  std::vector<double> dv; ///< (key rows, heads_k, head_dim_v)
  /// One per score.tensors, compact in the order of AuxTensor::shape.
  std::vector<std::vector<double>> dtensors;
  std::vector<double> dscalars; ///< One per score.scalars.
  std::vector<double> dsoftcap; ///< One element where softcap > 0.
  std::vector<double> dslopes;  ///< As alibi_slopes.
};

struct BackwardOutput : Gradients {
  std::vector<uint8_t> valid_q, valid_k; ///< Per row: 1 for one that belongs to a sequence and is in use.
  double max_score = 0;                  ///< Largest |final score| of a visible key.
  /// Only of fp64: what an error of each element is measured by. The root of the sum of squares of what a
  /// kernel that rounds P, dS, o and its results may get wrong there, as a multiple of the unit roundoff: it
  /// neither shrinks where terms cancel, nor grows with the number of keys faster than rounding does.
  Gradients scales;
};

/// Everything in fp64. `threads` 0 = all processors.
BackwardOutput backwardFp64(const BackwardProblem &problem, int threads = 0);

struct BackwardModel {
  /// P and dS are rounded e^shift times as large: the same results but for another set of roundings.
  double shift = 0;
  bool rounds_p = false; ///< dS is worked out from the rounded P, as where one warpgroup hands P to another.
};
/// Sums, scores and exponentials in fp32. Rounded to the storage type are P as dV's operand, dS as dQ's and
/// dK's, o (in delta) where it is worked out here, and dq, dk and dv.
BackwardOutput backwardStorageModel(const BackwardProblem &problem, const BackwardModel &model = {},
                                    int threads = 0);

} // namespace flashplus::reference
