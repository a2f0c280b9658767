// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/check.h"

#include "tools/io/convert.h"

#include <algorithm>
#include <cmath>

namespace flashplus::tool {

namespace {

using io::Tensor;

template <class T> const T *dataOf(const std::optional<Tensor> &tensor) {
  return tensor ? reinterpret_cast<const T *>(tensor->data.data()) : nullptr;
}

/// Strides of a compact (batch, seqlen, heads, dim) or (total, heads, dim) tensor.
reference::Strides compactStrides(const std::vector<int64_t> &shape) {
  int64_t dim = shape.back(), heads = shape[shape.size() - 2], rows = shape[shape.size() - 3];
  return {rows * heads * dim, heads * dim, dim};
}

Status bindScore(const Problem &problem, reference::Problem &to) {
  if (problem.score.empty())
    return Status::ok();
  Result<ScoreExpr> parsed = ScoreExpr::parse(problem.score);
  if (!parsed)
    return parsed.status();
  to.score = std::move(*parsed);
  for (const std::string &name : to.score.scalars) {
    auto found = std::find_if(problem.score_scalars.begin(), problem.score_scalars.end(),
                              [&](const auto &scalar) { return scalar.first == name; });
    if (found == problem.score_scalars.end())
      return invalidArgument("--scalar: '" + name + "' of --score is missing");
    to.scalars.push_back(found->second);
  }
  for (const ScoreTensor &tensor : to.score.tensors) {
    auto found = std::find_if(problem.score_tensors.begin(), problem.score_tensors.end(),
                              [&](const auto &given) { return given.first == tensor.name; });
    if (found == problem.score_tensors.end() ||
        found->second.shape.size() != static_cast<size_t>(tensor.rank))
      return invalidArgument("--tensor: '" + tensor.name +
                             "' of --score is missing or has another rank than " +
                             std::to_string(tensor.rank));
    reference::AuxTensor aux;
    aux.data = reinterpret_cast<const float *>(found->second.data.data());
    int64_t stride = 1;
    for (size_t i = found->second.shape.size(); i-- > 0; stride *= found->second.shape[i]) {
      aux.strides[i] = stride;
      aux.shape[i] = found->second.shape[i];
    }
    to.tensors.push_back(aux);
  }
  return Status::ok();
}

/// `problem` as the reference takes it, and as long as `problem` stays where it is.
Result<reference::Problem> referenceProblem(const Problem &problem) {
  reference::Problem to;
  to.dtype = problem.q.type == io::ElementType::F16    ? DType::F16
             : problem.q.type == io::ElementType::BF16 ? DType::BF16
                                                       : DType::F32;
  to.batch = static_cast<int64_t>(sequenceLengths(problem).size());
  if (problem.ragged()) {
    to.total_q = problem.q.shape[0];
    to.total_k = problem.k.shape[0];
  } else {
    to.seqlen_q = problem.q.shape[1];
    to.seqlen_k = problem.k.shape[1];
  }
  to.heads_q = problem.headsQ();
  to.heads_k = problem.k.shape[problem.k.shape.size() - 2];
  to.head_dim_qk = problem.q.shape.back();
  to.head_dim_v = problem.v.shape.back();
  to.q = problem.q.data.data();
  to.k = problem.k.data.data();
  to.v = problem.v.data.data();
  to.q_strides = compactStrides(problem.q.shape);
  to.k_strides = compactStrides(problem.k.shape);
  to.v_strides = compactStrides(problem.v.shape);
  to.cu_seqlens_q = dataOf<int32_t>(problem.cu_seqlens_q);
  to.cu_seqlens_k = dataOf<int32_t>(problem.cu_seqlens_k);
  to.seqused_q = dataOf<int32_t>(problem.seqused_q);
  to.seqused_k = dataOf<int32_t>(problem.seqused_k);
  to.window_left = problem.window_left;
  to.window_right = problem.causal ? 0 : problem.window_right;
  to.softmax_scale = problem.scale.value_or(1.0f / std::sqrt(static_cast<float>(to.head_dim_qk)));
  to.lse_empty = problem.lse_empty;
  to.softcap = problem.softcap;
  to.alibi_slopes = dataOf<float>(problem.alibi_slopes);
  to.alibi_per_batch = problem.alibi_slopes && problem.alibi_slopes->shape.size() == 2;
  to.sinks = dataOf<float>(problem.sinks);
  auto dropout = Dropout::make(static_cast<double>(problem.dropout_p));
  if (!dropout)
    return invalidArgument("--dropout: " + dropout.status().message());
  to.dropout = *dropout;
  to.rng_seed = problem.dropout_seed;
  FLASHPLUS_RETURN_IF_ERROR(bindScore(problem, to));
  return to;
}

std::vector<double> elementsOf(const Tensor &tensor) {
  std::vector<double> all(static_cast<size_t>(tensor.elements()));
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = io::elementAt(tensor, static_cast<int64_t>(i));
  return all;
}

} // namespace

Result<reference::Comparison> checkOutputs(const Problem &problem, const Tensor &output, const Tensor &lse,
                                           int threads) {
  Result<reference::Problem> made = referenceProblem(problem);
  if (!made)
    return made.status();
  const reference::Problem &to = *made;
  reference::Actual actual;
  int64_t rows = to.rowsQ();
  actual.o = elementsOf(output);
  // (batch, heads, seqlen) or (heads, total) -> (rows, heads)
  actual.lse.resize(static_cast<size_t>(lse.elements()));
  int64_t length = problem.ragged() ? rows : to.seqlen_q;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t head = 0; head < to.heads_q; ++head)
      actual.lse[static_cast<size_t>(row * to.heads_q + head)] =
          io::elementAt(lse, (row / length * to.heads_q + head) * length + row % length);
  return reference::compare(to, actual, threads);
}

Result<reference::BackwardComparison> checkGradients(const Problem &problem, const Tensor &dq,
                                                     const Tensor &dk, const Tensor &dv, int threads) {
  Result<reference::Problem> made = referenceProblem(problem);
  if (!made)
    return made.status();
  reference::BackwardProblem to;
  to.forward = std::move(*made);
  to.dout = problem.dout->data.data();
  to.dout_strides = compactStrides(problem.dout->shape);
  reference::Gradients actual;
  actual.dq = elementsOf(dq);
  actual.dk = elementsOf(dk);
  actual.dv = elementsOf(dv);
  return reference::compareBackward(to, actual, /*rounds_p=*/false, threads);
}

} // namespace flashplus::tool
