// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/backward_args.h"

#include "runtime/arguments/dropout_args.h"
#include "runtime/arguments/lengths.h"
#include "runtime/arguments/mask_args.h"
#include "runtime/arguments/operands.h"
#include "runtime/arguments/public_structs.h"
#include "runtime/arguments/score_binding.h"
#include "runtime/arguments/score_gradients.h"

namespace flashplus {
namespace {

/// A gradient that begins where another tensor does would be written over it, or over one another. (Views
/// that lie in one another, such as the three parts of a packed dqkv, begin at different places.)
Status checkApart(std::span<const OperandArg> operands) {
  for (const OperandArg &written : operands)
    for (const OperandArg &other : operands)
      if (written.written && &written != &other && written.view.data &&
          written.view.data == other.view.data && !written.view.isEmpty() && !other.view.isEmpty())
        return invalidArgument(std::string(written.name) + " has the memory of " + other.name +
                               "; a gradient needs memory of its own");
  return Status::ok();
}

/// lse, dlse, delta, and how it is to be planned.
Status checkRest(TensorReader &reader, const flashplus_backward_args &a, const TensorSizes &sizes,
                 BackwardProblem &out) {
  BackwardParams &p = out.params;
  TensorView lse, dlse;
  FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "lse", a.lse, /*written=*/false, sizes, lse));
  setRowStatistic(lse, sizes.ragged, p.lse, p.lse_stride_b, p.lse_stride_h);
  if (a.dlse) {
    FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "dlse", a.dlse, /*written=*/false, sizes, dlse));
    setRowStatistic(dlse, sizes.ragged, p.dlse, p.dlse_stride_b, p.dlse_stride_h);
  }
  if (a.delta) {
    TensorView delta;
    FLASHPLUS_RETURN_IF_ERROR(checkRowStatistic(reader, "delta", a.delta, /*written=*/true, sizes, delta));
    setRowStatistic(delta, sizes.ragged, p.delta, p.delta_stride_b, p.delta_stride_h);
  }
  out.any_order = a.any_order != 0;
  if (a.schedule && *a.schedule)
    out.schedule = a.schedule;
  if (reinterpret_cast<uintptr_t>(a.tile_counter) % sizeof(int64_t))
    return invalidArgument("tile_counter is not a multiple of 8 bytes");
  p.tile_counter = a.tile_counter;
  return Status::ok();
}

} // namespace

Status checkBackwardArgs(const flashplus_backward_args *args, DataPointers data, ScoreTable &scores,
                         BackwardProblem &out) {
  flashplus_backward_args a;
  FLASHPLUS_RETURN_IF_ERROR(readBackwardArgs(args, a));
  BackwardParams &p = out.params;
  TensorReader reader(data);
  TensorSizes sizes;
  OperandArg operands[] = {{"q", Operand::Q, a.q},          {"k", Operand::K, a.k},
                           {"v", Operand::V, a.v},          {"o", Operand::O, a.o},
                           {"dout", Operand::O, a.dout},    {"dq", Operand::Q, a.dq, true},
                           {"dk", Operand::K, a.dk, true},  {"dv", Operand::V, a.dv, true}};
  out.spec.op = Operation::Backward;
  FLASHPLUS_RETURN_IF_ERROR(checkOperands(reader, operands, a.cu_seqlens_q, a.cu_seqlens_k, out.spec, sizes));
  FLASHPLUS_RETURN_IF_ERROR(checkApart(operands));
  out.device = reader.device();
  const auto &[q, k, v, o, dout, dq, dk, dv] = operands;
  setRows(q.view, sizes.ragged, p.q, p.q_stride_b, p.q_stride_s, p.q_stride_h);
  setRows(k.view, sizes.ragged, p.k, p.k_stride_b, p.k_stride_s, p.k_stride_h);
  setRows(v.view, sizes.ragged, p.v, p.v_stride_b, p.v_stride_s, p.v_stride_h);
  setRows(o.view, sizes.ragged, p.o, p.o_stride_b, p.o_stride_s, p.o_stride_h);
  setRows(dout.view, sizes.ragged, p.dout, p.dout_stride_b, p.dout_stride_s, p.dout_stride_h);
  setRows(dq.view, sizes.ragged, p.dq, p.dq_stride_b, p.dq_stride_s, p.dq_stride_h);
  setRows(dk.view, sizes.ragged, p.dk, p.dk_stride_b, p.dk_stride_s, p.dk_stride_h);
  setRows(dv.view, sizes.ragged, p.dv, p.dv_stride_b, p.dv_stride_s, p.dv_stride_h);
  LengthArrays arrays;
  FLASHPLUS_RETURN_IF_ERROR(checkLengths(reader, lengthArgs(a), sizes, out, arrays));
  if (sizes.heads_q == 0 && sizes.heads_k > 0) // nobody would write dk and dv
    return invalidArgument("q has 0 heads and k has " + std::to_string(sizes.heads_k) +
                           "; with heads of k there must be some of q");
  // Without a query row the gradients of k and v are zeros, which somebody has to write.
  out.empty =
      out.bounds.batch == 0 || out.bounds.heads_q == 0 || (out.bounds.total_q == 0 && sizes.rows_k == 0);
  setLengths(arrays, sizes, out.bounds, p);
  FLASHPLUS_RETURN_IF_ERROR(checkMask(maskArgs(a), out));
  setMask(out.bounds, p);
  FLASHPLUS_RETURN_IF_ERROR(bindScore(reader, scoreArgs(a), scores, sizes, out, scoreParams(p)));
  if (const DropoutArgs dropout = dropoutArgs(a); dropout.any())
    FLASHPLUS_RETURN_IF_ERROR(bindDropout(reader, dropout, out.spec, p));
  FLASHPLUS_RETURN_IF_ERROR(checkSoftmaxScale(a.softmax_scale, sizes.head_dim_qk, p.softmax_scale));
  FLASHPLUS_RETURN_IF_ERROR(checkRest(reader, a, sizes, out));
  if (!a.dalibi_slopes && !a.dsoftcap && a.num_score_gradients == 0)
    return Status::ok();
  return bindScoreGradients(reader, a, operands, out);
}

} // namespace flashplus
