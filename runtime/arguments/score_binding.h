// SPDX-License-Identifier: BSD-3-Clause
// The score of a call: its form, and the values of its scalars and tensors in the params of a kernel. For the
// arguments of every operation that has these fields.
#pragma once

#include "runtime/arguments/operands.h"
#include "runtime/arguments/problem.h"

namespace flashplus {

/// The fields of a caller's struct that say so.
struct ScoreArgs {
  const char *score;
  const flashplus_score_tensor *tensors;
  const flashplus_score_scalar *scalars;
  int32_t num_tensors, num_scalars;
  float softcap;
  const DLTensor *alibi_slopes;
};
template <class Args> ScoreArgs scoreArgs(const Args &a) {
  return {a.score,   a.score_tensors, a.score_scalars, a.num_score_tensors, a.num_score_scalars,
          a.softcap, a.alibi_slopes};
}

/// Where the values go: arrays of the sizes that spec/params.h gives them, 0 where the score has no such
/// slot.
struct ScoreParams {
  void **aux;
  int64_t *aux_stride;
  int32_t *aux_last;
  float *scalar;
};
template <class Params> ScoreParams scoreParams(Params &p) {
  return {p.aux, p.aux_stride, p.aux_last, p.scalar};
}

/// Sets the score of the problem's spec, which is none so far, and the values. After checkLengths.
Status bindScore(TensorReader &reader, const ScoreArgs &args, ScoreTable &scores, const TensorSizes &sizes,
                 AttentionProblem &problem, const ScoreParams &out);

/// `given` or, if that is null, 1 / sqrt(head_dim).
Status checkSoftmaxScale(const float *given, int64_t head_dim, float &out);

} // namespace flashplus
