// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/forward_args.h"

#include "runtime/arguments/append_args.h"
#include "runtime/arguments/cache_args.h"
#include "runtime/arguments/dropout_args.h"
#include "runtime/arguments/lengths.h"
#include "runtime/arguments/mask_args.h"
#include "runtime/arguments/operands.h"
#include "runtime/arguments/public_structs.h"
#include "runtime/arguments/score_binding.h"
#include "runtime/arguments/sink_args.h"

#include <cmath>
#include <utility>

namespace flashplus {
namespace {

/// k and v are a cache: there is a field of one, or packed queries go with a k that has a dimension more.
bool usesCache(const flashplus_forward_args &a) {
  return cacheArgs(a).any() || (a.cu_seqlens_q && a.q && a.q->ndim == 3 && a.k && a.k->ndim == 4);
}

/// What only a forward has, and how it is to be planned.
Status checkRest(TensorReader &reader, const flashplus_forward_args &a, const TensorSizes &sizes,
                 ForwardProblem &out) {
  ForwardParams &p = out.params;
  if (std::isnan(a.lse_empty))
    return invalidArgument("lse_empty is NaN; it must be a number, +inf or -inf");
  p.lse_empty = a.lse_empty;
  if (a.num_splits < 0)
    return invalidArgument("num_splits is " + std::to_string(a.num_splits) + "; it must be 0 to 128");
  out.num_splits = a.num_splits;
  out.batch_invariant = a.batch_invariant != 0;
  if (a.schedule && *a.schedule)
    out.schedule = a.schedule;
  if (reinterpret_cast<uintptr_t>(a.tile_counter) % sizeof(int64_t))
    return invalidArgument("tile_counter is not a multiple of 8 bytes");
  p.tile_counter = a.tile_counter;
  if (!a.lse)
    return Status::ok();
  TensorView lse;
  FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "lse", a.lse, /*written=*/true, sizes, lse));
  setRowStatistic(lse, sizes.ragged, p.lse, p.lse_stride_b, p.lse_stride_h);
  return Status::ok();
}

} // namespace

Status checkForwardArgs(const flashplus_forward_args *args, DataPointers data, ScoreTable &scores,
                        ForwardProblem &out) {
  flashplus_forward_args a;
  FLASHPLUS_RETURN_IF_ERROR(readForwardArgs(args, a));
  ForwardParams &p = out.params;
  TensorReader reader(data);
  TensorSizes sizes;
  OperandArg operands[] = {
      {"q", Operand::Q, a.q}, {"k", Operand::K, a.k}, {"v", Operand::V, a.v}, {"o", Operand::O, a.o, true}};
  sizes.cache = usesCache(a);
  FLASHPLUS_RETURN_IF_ERROR(checkOperands(reader, operands, a.cu_seqlens_q, a.cu_seqlens_k, out.spec, sizes));
  out.device = reader.device();
  const auto &[q, k, v, o] = operands;
  setRows(q.view, sizes.ragged, p.q, p.q_stride_b, p.q_stride_s, p.q_stride_h);
  const bool packed_keys = sizes.ragged && !sizes.cache;
  setRows(k.view, packed_keys, p.k, p.k_stride_b, p.k_stride_s, p.k_stride_h);
  setRows(v.view, packed_keys, p.v, p.v_stride_b, p.v_stride_s, p.v_stride_h);
  setRows(o.view, sizes.ragged, p.o, p.o_stride_b, p.o_stride_s, p.o_stride_h);
  CacheTables tables;
  if (sizes.cache)
    FLASHPLUS_RETURN_IF_ERROR(readCache(reader, cacheArgs(a), k.view, sizes, tables));
  LengthArrays arrays;
  FLASHPLUS_RETURN_IF_ERROR(checkLengths(reader, lengthArgs(a), sizes, out, arrays));
  setLengths(arrays, sizes, out.bounds, p);
  FLASHPLUS_RETURN_IF_ERROR(checkMask(maskArgs(a), out));
  setMask(out.bounds, p);
  if (sizes.cache) {
    out.spec.keys = KeyAddressing::Paged;
    FLASHPLUS_RETURN_IF_ERROR(checkCache(tables, sizes, p));
    // A table of pages that has one column cuts nothing, but how many it has is the batch's matter, and which
    // kernel runs is not.
    out.bounds.key_run =
        tables.args.hasTable() ? keyRun(p.page_size, INT32_MAX, p.leftpad_k != nullptr) : kWholeRun;
  }
  if (usesAppend(a))
    FLASHPLUS_RETURN_IF_ERROR(checkAppend(reader, a, operands, sizes, out));
  else if (a.rotary_interleaved)
    return invalidArgument(
        "rotary_interleaved is 1 and rotary_cos is null; it goes with rotary_cos and rotary_sin");
  if (reader.device().device_type == kDLCPU && reader.readsData()) {
    if (out.append)
      FLASHPLUS_RETURN_IF_ERROR(checkNewSlots(a, *out.append));
    if (sizes.cache)
      FLASHPLUS_RETURN_IF_ERROR(checkCacheValues(tables, out, p, out.append ? &*out.append : nullptr));
  }
  FLASHPLUS_RETURN_IF_ERROR(bindScore(reader, scoreArgs(a), scores, sizes, out, scoreParams(p)));
  if (const DropoutArgs dropout = dropoutArgs(a); dropout.any())
    FLASHPLUS_RETURN_IF_ERROR(bindDropout(reader, dropout, out.spec, p));
  if (const SinkArgs sinks = sinkArgs(a); sinks.any())
    FLASHPLUS_RETURN_IF_ERROR(checkSinks(reader, sinks, sizes, out.spec, p));
  FLASHPLUS_RETURN_IF_ERROR(checkSoftmaxScale(a.softmax_scale, sizes.head_dim_qk, p.softmax_scale));
  return checkRest(reader, a, sizes, out);
}

} // namespace flashplus
