// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/tensors.h"

#include "tools/io/convert.h"

namespace flashplus::tool {

namespace {

using io::Tensor;

int64_t valueAt(const Tensor &tensor, int64_t i) { return static_cast<int64_t>(io::elementAt(tensor, i)); }

Status checkCumulative(const std::string &flag, const Tensor &cu, int64_t total, const char *of) {
  if (cu.shape.size() != 1 || cu.shape[0] < 2)
    return invalidArgument(flag + ": shape " + io::shapeText(cu.shape) +
                           ", must be (batch + 1,) with batch >= 1");
  if (valueAt(cu, 0) != 0)
    return invalidArgument(flag + ": element 0 = " + std::to_string(valueAt(cu, 0)) + ", must be 0");
  for (int64_t i = 1; i < cu.shape[0]; ++i)
    if (valueAt(cu, i) < valueAt(cu, i - 1) || valueAt(cu, i) > total)
      return invalidArgument(flag + ": element " + std::to_string(i) + " = " +
                             std::to_string(valueAt(cu, i)) + ", must be from " +
                             std::to_string(valueAt(cu, i - 1)) + " (the element before) to " +
                             std::to_string(total) + " (the rows of " + of + ")");
  return Status::ok();
}

Status checkUsed(const std::string &flag, const Tensor &used, const std::optional<Tensor> &cu, int64_t batch,
                 int64_t rows) {
  if (used.shape.size() != 1 || used.shape[0] != batch)
    return invalidArgument(flag + ": shape " + io::shapeText(used.shape) + ", must be (" +
                           std::to_string(batch) + ",), one length per sequence");
  for (int64_t b = 0; b < batch; ++b) {
    int64_t most = cu ? valueAt(*cu, b + 1) - valueAt(*cu, b) : rows;
    if (valueAt(used, b) < 0 || valueAt(used, b) > most)
      return invalidArgument(flag + ": element " + std::to_string(b) + " = " +
                             std::to_string(valueAt(used, b)) + ", must be from 0 to " +
                             std::to_string(most) + ", the rows of that sequence");
  }
  return Status::ok();
}

int64_t longest(const Tensor &cu) {
  int64_t most = 0;
  for (int64_t i = 1; i < cu.shape[0]; ++i)
    most = std::max(most, valueAt(cu, i) - valueAt(cu, i - 1));
  return most;
}

} // namespace

Status checkProblem(const Problem &problem) {
  if (problem.cu_seqlens_q.has_value() != problem.cu_seqlens_k.has_value())
    return invalidArgument("--cu-seqlens-q and --cu-seqlens-k go together");
  size_t rank = problem.ragged() ? 3 : 4;
  const char *layout = problem.ragged() ? "(total, heads, head_dim), as with --cu-seqlens-q/-k"
                                        : "(batch, seqlen, heads, head_dim)";
  for (auto [name, tensor] : {std::pair("q", &problem.q), {"k", &problem.k}, {"v", &problem.v}})
    if (tensor->shape.size() != rank)
      return invalidArgument(std::string(name) + ": shape " + io::shapeText(tensor->shape) + ", must be " +
                             layout);
  int64_t batch = problem.q.shape[0];
  if (problem.ragged()) {
    FLASHPLUS_RETURN_IF_ERROR(
        checkCumulative("--cu-seqlens-q", *problem.cu_seqlens_q, problem.q.shape[0], "q"));
    FLASHPLUS_RETURN_IF_ERROR(
        checkCumulative("--cu-seqlens-k", *problem.cu_seqlens_k, problem.k.shape[0], "k"));
    batch = problem.cu_seqlens_q->shape[0] - 1;
    if (problem.cu_seqlens_k->shape[0] - 1 != batch)
      return invalidArgument("--cu-seqlens-k: " + std::to_string(problem.cu_seqlens_k->shape[0] - 1) +
                             " sequences, --cu-seqlens-q has " + std::to_string(batch));
    for (auto [flag, bound, cu] :
         {std::tuple("--max-seqlen-q", problem.max_seqlen_q, &*problem.cu_seqlens_q),
          std::tuple("--max-seqlen-k", problem.max_seqlen_k, &*problem.cu_seqlens_k)})
      if (bound < longest(*cu))
        return invalidArgument(std::string(flag) + " " + std::to_string(bound) + ": must be at least " +
                               std::to_string(longest(*cu)) + ", the longest sequence");
  }
  int64_t rows_q = problem.ragged() ? 0 : problem.q.shape[1],
          rows_k = problem.ragged() ? 0 : problem.k.shape[1];
  if (problem.seqused_q)
    FLASHPLUS_RETURN_IF_ERROR(
        checkUsed("--seqused-q", *problem.seqused_q, problem.cu_seqlens_q, batch, rows_q));
  if (problem.seqused_k)
    FLASHPLUS_RETURN_IF_ERROR(
        checkUsed("--seqused-k", *problem.seqused_k, problem.cu_seqlens_k, batch, rows_k));
  return Status::ok();
}

} // namespace flashplus::tool
