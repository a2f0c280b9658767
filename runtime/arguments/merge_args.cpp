// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/merge_args.h"

#include "runtime/arguments/operands.h"
#include "runtime/arguments/public_structs.h"

#include <tuple>
#include <utility>

namespace flashplus {
namespace {

constexpr int64_t kMaxRows = int64_t(1) << 48; ///< Of all heads and batch entries.

std::string number(int64_t v) { return std::to_string(v); }

/// Rank, shape and dtype of o_a, which the others have, too.
Status checkFirst(const TensorView &o_a, MergeProblem &out) {
  FLASHPLUS_RETURN_IF_ERROR(readDType(o_a, out.spec.dtype));
  if (o_a.rank != 3 && o_a.rank != 4)
    return invalidArgument("o_a has shape " + o_a.shapeText() +
                           "; it must have 4 dimensions, (batch, seqlen, heads, d), or 3, (total, heads, d)");
  const int64_t *last = o_a.shape + o_a.rank - 1, d = *last, heads = last[-1], rows = last[-2];
  const int64_t batch = o_a.rank == 4 ? o_a.shape[0] : 1;
  if (d < 1 || d > kMaxHeadDim)
    return invalidArgument("o_a has head_dim " + number(d) + "; it must be 1 to " + number(kMaxHeadDim));
  for (auto [name, value] : {std::pair{"batch", batch}, {"heads", heads}, {"rows", rows}})
    if (value > kMaxLength)
      return invalidArgument(std::string(name) + " of o_a is " + number(value) + "; at most " +
                             number(kMaxLength) + " are allowed");
  int64_t all = 0; // batch and heads are below 2^30, so their product fits
  if (__builtin_mul_overflow(batch * heads, rows, &all) || all > kMaxRows)
    return invalidArgument("o_a has shape " + o_a.shapeText() + "; at most 2^48 rows in all are allowed");
  out.spec.head_dim_v = int(d);
  out.spec.alignment = dtypeBytes(out.spec.dtype); // rows are read element by element or by masked vectors
  out.bounds = {batch, rows, 0, batch * rows, heads, heads, -1, -1};
  out.empty = all == 0;
  out.params.batch = int32_t(batch);
  out.params.seqlen_q = int32_t(rows);
  out.params.heads_q = int32_t(heads);
  return Status::ok();
}

/// What is written in the place of a side has its strides, so that a row is read by who writes it.
Status checkInPlace(const TensorView &written, const TensorView &side) {
  if (!written.data || written.data != side.data || written.isEmpty())
    return Status::ok();
  for (int d = 0; d < written.rank; ++d)
    if (written.shape[d] > 1 && written.strides[d] != side.strides[d])
      return invalidArgument(std::string(written.name) + " has the memory of " + side.name +
                             " and stride " + number(written.strides[d]) + " in dimension " + number(d) +
                             "; in place it must have the strides of " + side.name + ", " +
                             number(side.strides[d]) + " there");
  return Status::ok();
}

/// An o and an lse are never in one place.
Status checkApart(const TensorView &written, const TensorView &other) {
  if (!written.data || written.data != other.data || written.isEmpty())
    return Status::ok();
  return invalidArgument(std::string(written.name) + " has the memory of " + other.name +
                         "; it needs memory of its own");
}

} // namespace

Status checkMergeArgs(const flashplus_merge_args *args, DataPointers data, ScoreTable &, MergeProblem &out) {
  flashplus_merge_args a;
  FLASHPLUS_RETURN_IF_ERROR(readMergeArgs(args, a));
  TensorReader reader(data);
  TensorView o_a, o_b, o, lse_a, lse_b, lse;
  out.spec.op = Operation::Merge;
  FLASHPLUS_RETURN_IF_ERROR(reader.read("o_a", a.o_a, o_a));
  FLASHPLUS_RETURN_IF_ERROR(checkFirst(o_a, out));
  FLASHPLUS_RETURN_IF_ERROR(o_a.wantUnitStride());
  out.device = reader.device();
  const DLDataType &dtype = o_a.source->dtype;
  for (auto [name, source, view] : {std::tuple{"o_b", a.o_b, &o_b}, {"o", a.o, &o}}) {
    FLASHPLUS_RETURN_IF_ERROR(reader.read(name, source, *view));
    if (!view->hasType(DLDataTypeCode(dtype.code), dtype.bits))
      return invalidArgument(std::string(name) + " has dtype " + view->dtypeText() + "; it must be o_a's, " +
                             o_a.dtypeText());
    FLASHPLUS_RETURN_IF_ERROR(view->wantShape(std::span(o_a.shape).first(size_t(o_a.rank)), "that of o_a"));
    FLASHPLUS_RETURN_IF_ERROR(view->wantUnitStride());
  }
  FLASHPLUS_RETURN_IF_ERROR(o.wantDistinct());
  TensorSizes sizes;
  sizes.ragged = o_a.rank == 3;
  sizes.batch = out.bounds.batch;
  sizes.rows_q = out.bounds.max_seqlen_q;
  sizes.heads_q = out.bounds.heads_q;
  FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "lse_a", a.lse_a, /*written=*/false, sizes, lse_a));
  FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "lse_b", a.lse_b, /*written=*/false, sizes, lse_b));
  if (a.lse)
    FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "lse", a.lse, /*written=*/true, sizes, lse));
  for (const TensorView *side : {&o_a, &o_b})
    FLASHPLUS_RETURN_IF_ERROR(checkInPlace(o, *side));
  for (const TensorView *side : {&lse_a, &lse_b}) {
    FLASHPLUS_RETURN_IF_ERROR(checkInPlace(lse, *side));
    FLASHPLUS_RETURN_IF_ERROR(checkApart(o, *side));
  }
  for (const TensorView *other : {&o_a, &o_b, &o})
    FLASHPLUS_RETURN_IF_ERROR(checkApart(lse, *other));
  MergeParams &p = out.params;
  setRows(o_a, sizes.ragged, p.o_a, p.o_a_stride_b, p.o_a_stride_s, p.o_a_stride_h);
  setRows(o_b, sizes.ragged, p.o_b, p.o_b_stride_b, p.o_b_stride_s, p.o_b_stride_h);
  setRows(o, sizes.ragged, p.o, p.o_stride_b, p.o_stride_s, p.o_stride_h);
  setRowStatistic(lse_a, sizes.ragged, p.lse_a, p.lse_a_stride_b, p.lse_a_stride_h);
  setRowStatistic(lse_b, sizes.ragged, p.lse_b, p.lse_b_stride_b, p.lse_b_stride_h);
  if (a.lse)
    setRowStatistic(lse, sizes.ragged, p.lse, p.lse_stride_b, p.lse_stride_h);
  return Status::ok();
}

} // namespace flashplus
