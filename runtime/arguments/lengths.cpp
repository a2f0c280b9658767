// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/lengths.h"

#include "runtime/arguments/public_structs.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace flashplus {
namespace {

/// batch * heads * rows: sums of it with splits and tiles fit int64.
constexpr int64_t kMaxRows = int64_t(1) << 48;

/// int32 (n) tensors of lengths; n < 0: of any length.
Status readLengths(TensorReader &reader, const char *name, const DLTensor *source, int64_t n,
                   TensorView &out) {
  FLASHPLUS_RETURN_IF_ERROR(reader.read(name, source, out));
  FLASHPLUS_RETURN_IF_ERROR(out.wantType(kDLInt, 32, "int32"));
  if (n >= 0)
    FLASHPLUS_RETURN_IF_ERROR(out.wantShape({n}, name[0] == 'c' ? "(batch + 1)" : "(batch)"));
  if (out.rank != 1)
    return invalidArgument(std::string(name) + " has shape " + out.shapeText() +
                           "; it must have 1 dimension");
  return out.wantUnitStride();
}

Status checkBound(const char *name, int64_t value) {
  if (value >= 0 && value <= kMaxLength)
    return Status::ok();
  return invalidArgument(std::string(name) + " is " + std::to_string(value) + "; it must be 0 to " +
                         std::to_string(kMaxLength));
}

Status checkPacked(TensorReader &reader, const LengthArgs &args, TensorSizes &sizes, LengthArrays &out) {
  TensorView cu_q, cu_k;
  FLASHPLUS_RETURN_IF_ERROR(readLengths(reader, "cu_seqlens_q", args.cu_seqlens_q, -1, cu_q));
  if (cu_q.shape[0] < 1)
    return invalidArgument("cu_seqlens_q has 0 elements; it must have batch + 1");
  sizes.batch = cu_q.shape[0] - 1;
  if (args.cu_seqlens_k)
    FLASHPLUS_RETURN_IF_ERROR(readLengths(reader, "cu_seqlens_k", args.cu_seqlens_k, sizes.batch + 1, cu_k));
  FLASHPLUS_RETURN_IF_ERROR(checkBound("max_seqlen_q", args.max_seqlen_q));
  FLASHPLUS_RETURN_IF_ERROR(checkBound("max_seqlen_k", args.max_seqlen_k));
  constexpr int64_t kAny = std::numeric_limits<int32_t>::max();
  FLASHPLUS_RETURN_IF_ERROR(checkCumulative(reader, cu_q, sizes.rows_q, args.max_seqlen_q, "max_seqlen_q"));
  if (args.cu_seqlens_k)
    FLASHPLUS_RETURN_IF_ERROR(checkCumulative(reader, cu_k, sizes.cache ? kAny : sizes.rows_k,
                                              sizes.cache ? kAny : args.max_seqlen_k, "max_seqlen_k"));
  out.cu_seqlens_q = cu_q.data;
  out.cu_seqlens_k = cu_k.data;
  return Status::ok();
}

Status checkUsed(TensorReader &reader, const char *name, const DLTensor *source, int64_t batch, void *&out) {
  TensorView used;
  FLASHPLUS_RETURN_IF_ERROR(readLengths(reader, name, source, batch, used));
  if (reader.onHost(used))
    for (int64_t i = 0; i < batch; ++i)
      if (const int32_t value = static_cast<const int32_t *>(used.data)[i]; value < 0)
        return invalidArgument(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(value) +
                               "; it must not be negative");
  out = used.data;
  return Status::ok();
}

} // namespace

Status checkCumulative(const TensorReader &reader, const TensorView &t, int64_t total, int64_t longest,
                       const char *longest_name) {
  if (!reader.onHost(t))
    return Status::ok();
  const auto *values = static_cast<const int32_t *>(t.data);
  auto element = [&](int64_t i) {
    return t.name + ("[" + std::to_string(i) + "] is " + std::to_string(values[i]));
  };
  if (values[0] != 0)
    return invalidArgument(element(0) + "; it must be 0");
  for (int64_t i = 1; i < t.shape[0]; ++i) {
    if (values[i] < values[i - 1])
      return invalidArgument(element(i) + ", less than " + std::to_string(values[i - 1]) +
                             " before it; it must not decrease");
    if (values[i] - values[i - 1] > longest)
      return invalidArgument(std::string(longest_name) + " is " + std::to_string(longest) + ", but " +
                             t.name + " holds a sequence of " + std::to_string(values[i] - values[i - 1]) +
                             " rows; it must be at least that");
  }
  if (values[t.shape[0] - 1] > total)
    return invalidArgument(std::string(t.name) + " ends at " + std::to_string(values[t.shape[0] - 1]) +
                           "; there are only " + std::to_string(total) + " rows");
  return Status::ok();
}

Status checkLengths(TensorReader &reader, const LengthArgs &args, TensorSizes &sizes,
                    AttentionProblem &problem, LengthArrays &out) {
  int64_t max_q = sizes.rows_q, max_k = sizes.rows_k;
  for (auto [name, value] : {std::pair{"q", max_q}, {"k", max_k}})
    if (value > kMaxLength)
      return invalidArgument(std::string(name) + " has " + std::to_string(value) + " rows; at most " +
                             std::to_string(kMaxLength) + " are allowed");
  if (sizes.ragged) {
    FLASHPLUS_RETURN_IF_ERROR(checkPacked(reader, args, sizes, out));
    // A bound beyond the total cannot be reached; cutting it keeps the grid small.
    max_q = std::min(args.max_seqlen_q, max_q);
    max_k = std::min(args.max_seqlen_k, max_k);
  } else if (sizes.cache) {
    FLASHPLUS_RETURN_IF_ERROR(checkBound("max_seqlen_k", args.max_seqlen_k));
    max_k = std::min(args.max_seqlen_k, max_k);
  }
  const int64_t batch = sizes.batch;
  for (auto [name, value] :
       {std::pair{"batch", batch}, {"heads of q", sizes.heads_q}, {"heads of k", sizes.heads_k}})
    if (value > kMaxLength)
      return invalidArgument(std::string(name) + " is " + std::to_string(value) + "; at most " +
                             std::to_string(kMaxLength) + " are allowed");
  int64_t rows = 0; // batch and heads are below 2^30, so their product fits
  if (__builtin_mul_overflow(batch * std::max<int64_t>(sizes.heads_q, 1), std::max<int64_t>(max_q, 1),
                             &rows) ||
      rows > kMaxRows)
    return invalidArgument("batch " + std::to_string(batch) + " * heads of q " +
                           std::to_string(sizes.heads_q) + " * rows of q " + std::to_string(max_q) +
                           " is too large; at most 2^48 are allowed");
  if (args.seqused_q)
    FLASHPLUS_RETURN_IF_ERROR(checkUsed(reader, "seqused_q", args.seqused_q, batch, out.seqused_q));
  if (args.seqused_k)
    FLASHPLUS_RETURN_IF_ERROR(checkUsed(reader, "seqused_k", args.seqused_k, batch, out.seqused_k));
  sizes.uneven_q = sizes.ragged || args.seqused_q;
  sizes.uneven_k = sizes.ragged || sizes.cache || args.seqused_k;
  const int64_t total_q = sizes.ragged ? sizes.rows_q : batch * sizes.rows_q;
  problem.bounds = {batch, max_q, max_k, total_q, sizes.heads_q, sizes.heads_k, -1, -1};
  problem.empty = total_q == 0 || sizes.heads_q == 0 || batch == 0;
  return Status::ok();
}

} // namespace flashplus
