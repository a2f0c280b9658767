// SPDX-License-Identifier: BSD-3-Clause
// Draft: the backward pass. See README.md here for where each piece goes.
#pragma once

#include "spec/kernel_spec.h"

#include <cstdint>

namespace flashplus::draft {

/// Three operations, each a step of the plan:
///   pre   delta[i] = sum_d dout[i, d] o[i, d], and dq_accum = 0
///   main  per key tile: P = exp(S - lse), dV += P^T dO, dP = dO V^T, dS = P (dP - delta) dscore/ds, dK += dS^T Q,
///         dq_accum += dS K
///   post  dq = softmax_scale * dq_accum in the storage dtype; dk and dv summed over the query heads of a group
enum class BackwardOperation { Pre, Main, Post };

/// Beyond the forward's fields.
struct BackwardSpec {
  BackwardOperation op = BackwardOperation::Main;
  KernelSpec forward;          ///< split is always false.
  bool deterministic = false;  ///< dq_accum in a fixed order: semaphores instead of free atomics.
};

/// Shapes as the forward's; gradients have the dtype of what they are the gradient of.
struct BackwardArgs {
  const void *dout, *q, *k, *v, *o; ///< As the forward saw and wrote them.
  const float *lse;                 ///< As the forward wrote it; rows of +inf contribute nothing.
  void *dq, *dk, *dv;
  bool deterministic;
};

/// Workspace: dq_accum fp32 (rows_q, heads_q, head_dim_qk), delta fp32 (heads_q, rows_q), and for GQA fp32 dk and dv
/// per query head; deterministic adds one int32 semaphore a query tile.
struct BackwardWorkspace {
  int64_t dq_accum, delta, dk_accum, dv_accum, semaphores, bytes; ///< Offsets in bytes.
};

} // namespace flashplus::draft
