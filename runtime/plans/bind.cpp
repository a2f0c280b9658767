// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/bind.h"

#include "runtime/arguments/backward_args.h"
#include "runtime/arguments/forward_args.h"
#include "runtime/arguments/merge_args.h"
#include "runtime/kernels/kernel_table.h"
#include "runtime/plans/tensor_layouts.h"
#include "templates/backward/planner.h"
#include "templates/forward/planner.h"

#include <algorithm>
#include <type_traits>

namespace flashplus {
namespace {

/// What a step's binder reads.
struct BindInput {
  AttentionProblem &problem;
  const LaunchRecord &record;
  const StepRecord &step; ///< One of the record's.
  Geometry geometry;      ///< Of the step's items.
  void *workspace;

  void *part(int index) const { return record.part(workspace, index); }
  /// The step before, of a step that is never the first.
  const StepRecord &before() const { return (&step)[-1]; }
};

/// The forward behind an append reads what that writes: the lengths, and q where it turns it.
void readAppended(const BindInput &in, ForwardParams &p) {
  p.seqused_k = in.part(kNewLengths);
  if (!in.problem.bounds.rotates_q)
    return;
  p.q = in.part(kRotatedQ);
  p.q_stride_h = in.problem.spec.head_dim_qk;
  p.q_stride_s = p.q_stride_h * p.heads_q;
  p.q_stride_b = p.cu_seqlens_q ? 0 : p.q_stride_s * p.seqlen_q;
}

// One overload a params struct. It returns them, or a reference to those of the problem: a launch of one step
// copies nothing.

const ForwardParams &bind(const BindInput &in, std::type_identity<ForwardParams>) {
  ForwardParams &p = problemAs<ForwardProblem>(in.problem).params;
  p.num_m_tiles = int32_t(in.geometry.tiles);
  p.num_work_items = int32_t(in.geometry.items);
  p.num_splits = in.step.item.num_splits;
  p.heads_per_section = in.step.item.heads_per_section;
  p.work_counter = in.part(kWorkCounter);
  p.partial_o = in.part(kPartialO);
  p.partial_lse = in.part(kPartialLse);
  if (in.problem.spec.append)
    readAppended(in, p);
  return p;
}

const AppendParams &bind(const BindInput &in, std::type_identity<AppendParams>) {
  AppendParams &p = *problemAs<ForwardProblem>(in.problem).append;
  p.q_rotated = in.problem.bounds.rotates_q ? in.part(kRotatedQ) : nullptr;
  p.lengths = in.part(kNewLengths);
  p.num_row_blocks = int32_t(in.geometry.tiles);
  return p;
}

CombineParams bind(const BindInput &in, std::type_identity<CombineParams>) {
  const ForwardParams &f = problemAs<ForwardProblem>(in.problem).params;
  CombineParams p;
  p.partial_o = in.part(kPartialO);
  p.partial_lse = in.part(kPartialLse);
  p.o = f.o;
  p.lse = f.lse;
  p.cu_seqlens_q = f.cu_seqlens_q;
  p.seqused_q = f.seqused_q;
  p.o_stride_b = f.o_stride_b;
  p.o_stride_s = f.o_stride_s;
  p.o_stride_h = f.o_stride_h;
  p.lse_stride_b = f.lse_stride_b;
  p.lse_stride_h = f.lse_stride_h;
  p.rows_q = f.rows_q;
  p.batch = f.batch;
  p.seqlen_q = f.seqlen_q;
  p.heads_q = f.heads_q;
  p.num_row_blocks = int32_t(in.geometry.tiles);
  p.num_splits = in.before().item.num_splits;
  p.lse_empty = f.lse_empty;
  p.sinks = f.sinks;
  p.sink_in_lse = f.sink_in_lse;
  return p;
}

const MergeParams &bind(const BindInput &in, std::type_identity<MergeParams>) {
  MergeParams &p = problemAs<MergeProblem>(in.problem).params;
  p.num_row_blocks = int32_t(in.geometry.tiles);
  return p;
}

const BackwardParams &bind(const BindInput &in, std::type_identity<BackwardParams>) {
  BackwardParams &p = problemAs<BackwardProblem>(in.problem).params;
  p.num_m_tiles = int32_t(in.geometry.tiles);
  p.num_work_items = int32_t(in.geometry.items);
  p.heads_per_section = in.step.item.heads_per_section;
  p.work_counter = in.part(kBackwardCounter);
  p.row_lse = in.part(kRowLse);
  p.row_delta = in.part(kRowDelta);
  p.dq_parts = in.part(kDQParts);
  p.dq_columns = p.dq_parts ? in.problem.spec.head_dim_qk : 0;
  // One step has shares of the keys; the sum, which comes after it, adds as many parts.
  p.num_splits = std::max(p.num_splits, in.step.item.num_splits);
  p.score_shares = in.step.item.num_splits;
  return p;
}

template <class Params, Operand... kMapped>
Status enqueue(const BindInput &in, Device &device, void *stream) {
  const auto &params = bind(in, std::type_identity<Params>());
  in.step.kernel->noteUse();
  LoadedKernel &kernel = *in.step.kernel->loaded;
  if (!in.step.maps)
    return device.launch(kernel, &params, in.geometry, {}, stream);
  return device.launch(kernel, &params, in.geometry, tensorLayouts<kMapped...>(params, in.problem.spec),
                       stream);
}

/// An operation without a bind() of its own does not compile.
Status enqueueStep(const BindInput &in, Device &device, void *stream) {
  switch (in.step.op) {
#define FLASHPLUS_ENQUEUE_CASE(ENUMERATOR, NAME, PARAMS, FIELDS, SCORE, ...)                                 \
  case Operation::ENUMERATOR:                                                                                \
    return enqueue<PARAMS __VA_OPT__(, ) __VA_ARGS__>(in, device, stream);
    FLASHPLUS_OPERATIONS(FLASHPLUS_ENQUEUE_CASE)
#undef FLASHPLUS_ENQUEUE_CASE
  }
  return {StatusCode::Internal, "a launch record has a step of no operation"};
}

} // namespace

Status launch(const LaunchRecord &record, Device &device, AttentionProblem &problem, void *workspace,
              void *stream) {
  for (int64_t i = 0; i < record.num_steps; ++i) {
    const StepRecord &step = record.steps[i];
    const Geometry geometry = geometryOf(step.item, problem.bounds);
    if (geometry.items == 0) // an append has rows where a forward has none
      continue;
    FLASHPLUS_RETURN_IF_ERROR(enqueueStep({problem, record, step, geometry, workspace}, device, stream));
  }
  return Status::ok();
}

} // namespace flashplus
