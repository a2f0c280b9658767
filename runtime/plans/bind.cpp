// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/bind.h"

#include "runtime/kernels/kernel_table.h"
#include "templates/forward/planner.h"

#include <algorithm>
#include <new>

namespace flashplus {
namespace {

void bind(const BindInput &in, ForwardParams &p) {
  p = in.problem.params;
  p.num_m_tiles = int32_t(in.geometry.tiles);
  p.num_work_items = int32_t(in.geometry.items);
  p.num_splits = in.step.item.num_splits;
  p.heads_per_section = in.step.item.heads_per_section;
  p.work_counter = in.record.part(in.workspace, kWorkCounter);
  p.partial_o = in.record.part(in.workspace, kPartialO);
  p.partial_lse = in.record.part(in.workspace, kPartialLse);
}

void bind(const BindInput &in, CombineParams &p) {
  const ForwardParams &f = in.problem.params;
  p.partial_o = in.record.part(in.workspace, kPartialO);
  p.partial_lse = in.record.part(in.workspace, kPartialLse);
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
  p.num_splits = in.record.steps[0].item.num_splits;
  p.lse_empty = f.lse_empty;
}

/// Room for the params of any operation.
struct Params {
#define FLASHPLUS_PARAMS_SIZE(ENUMERATOR, NAME, PARAMS, ...) sizeof(PARAMS),
  static constexpr size_t kBytes = std::max({FLASHPLUS_OPERATIONS(FLASHPLUS_PARAMS_SIZE)});
#undef FLASHPLUS_PARAMS_SIZE
  alignas(8) std::byte bytes[kBytes];
};

/// An operation without a bind() of its own does not compile.
void bindStep(const BindInput &in, Params &params) {
  switch (in.step.op) {
#define FLASHPLUS_BIND_CASE(ENUMERATOR, NAME, PARAMS, ...)                                                   \
  case Operation::ENUMERATOR:                                                                                \
    return bind(in, *new (params.bytes) PARAMS);
    FLASHPLUS_OPERATIONS(FLASHPLUS_BIND_CASE)
#undef FLASHPLUS_BIND_CASE
  }
}

} // namespace

std::array<TensorLayout, 3> tensorLayouts(const ForwardProblem &problem) {
  const ForwardParams &p = problem.params;
  const SpecFields &s = problem.spec;
  const int64_t bytes = dtypeBytes(s.dtype);
  auto layout = [&](void *data, int head_dim, int64_t rows, int64_t length, int64_t heads, bool ragged, int64_t stride_s,
                    int64_t stride_h, int64_t stride_b) {
    return TensorLayout{data,
                        {head_dim, ragged ? rows : length, heads, ragged ? 1 : p.batch},
                        {stride_s * bytes, stride_h * bytes, stride_b * bytes},
                        s.dtype};
  };
  const bool ragged_q = p.cu_seqlens_q != nullptr, ragged_k = p.cu_seqlens_k != nullptr;
  return {layout(p.q, s.head_dim_qk, p.rows_q, p.seqlen_q, p.heads_q, ragged_q, p.q_stride_s, p.q_stride_h, p.q_stride_b),
          layout(p.k, s.head_dim_qk, p.rows_k, p.seqlen_k, p.heads_k, ragged_k, p.k_stride_s, p.k_stride_h, p.k_stride_b),
          layout(p.v, s.head_dim_v, p.rows_k, p.seqlen_k, p.heads_k, ragged_k, p.v_stride_s, p.v_stride_h, p.v_stride_b)};
}

Status launch(const LaunchRecord &record, Device &device, const ForwardProblem &problem, void *workspace, void *stream) {
  const auto tensors = tensorLayouts(problem);
  Params params;
  for (int64_t i = 0; i < record.num_steps; ++i) {
    const StepRecord &step = record.steps[i];
    const Geometry geometry = geometryOf(step.item, problem.bounds);
    bindStep({problem, record, step, geometry, workspace}, params);
    FLASHPLUS_RETURN_IF_ERROR(device.launch(*step.kernel->loaded, params.bytes, geometry.items, tensors, stream));
  }
  return Status::ok();
}

} // namespace flashplus
