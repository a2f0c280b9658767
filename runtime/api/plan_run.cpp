// SPDX-License-Identifier: BSD-3-Clause
// flashplus_plan_* and flashplus_forward.
#include "runtime/api/error.h"
#include "runtime/plans/plan.h"
#include "templates/algorithm.h"

#include <algorithm>
#include <array>
#include <tuple>

using namespace flashplus;

namespace {

/// q, k and v for kernels that want tensor maps.
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

/// Enqueues the steps. No allocation, lock or synchronisation.
Status launch(const PlanRecord &plan, Device &device, const ForwardProblem &problem, void *workspace, void *stream) {
  ForwardParams params = problem.params;
  const ForwardBounds &b = problem.bounds;
  const int64_t packed = plan.packs_heads ? b.heads_q / b.heads_k : 1;
  const int64_t m_tiles = ceilDiv(b.max_seqlen_q * packed, plan.tile_m);
  params.num_m_tiles = int32_t(m_tiles);
  params.num_splits = plan.num_splits;
  const int64_t items = b.batch * ceilDiv(b.heads_q / packed, plan.key_heads) * m_tiles * plan.num_splits;
  params.num_work_items = int32_t(items);
  params.heads_per_section = plan.heads_per_section;
  params.work_counter = plan.work_counter_bytes ? workspace : nullptr;
  const auto tensors = tensorLayouts(problem);
  if (plan.num_splits == 1)
    return device.launch(*plan.forward->loaded, &params, items, tensors, stream);

  params.partial_o = static_cast<char *>(workspace) + plan.partial_o_offset;
  params.partial_lse = static_cast<char *>(workspace) + plan.partial_lse_offset;
  FLASHPLUS_RETURN_IF_ERROR(device.launch(*plan.forward->loaded, &params, items, tensors, stream));
  CombineParams merge;
  merge.partial_o = params.partial_o;
  merge.partial_lse = params.partial_lse;
  merge.o = params.o;
  merge.lse = params.lse;
  merge.cu_seqlens_q = params.cu_seqlens_q;
  merge.seqused_q = params.seqused_q;
  merge.o_stride_b = params.o_stride_b;
  merge.o_stride_s = params.o_stride_s;
  merge.o_stride_h = params.o_stride_h;
  merge.lse_stride_b = params.lse_stride_b;
  merge.lse_stride_h = params.lse_stride_h;
  merge.rows_q = params.rows_q;
  merge.batch = params.batch;
  merge.seqlen_q = params.seqlen_q;
  merge.heads_q = params.heads_q;
  const int64_t blocks = ceilDiv(b.max_seqlen_q, plan.combine_rows);
  merge.num_row_blocks = int32_t(blocks);
  merge.num_splits = plan.num_splits;
  merge.lse_empty = params.lse_empty;
  return device.launch(*plan.combine->loaded, &merge, b.batch * b.heads_q * blocks, {}, stream);
}

/// Frees a workspace in stream order.
struct Workspace {
  Device &device;
  void *stream;
  void *memory = nullptr;
  ~Workspace() {
    if (memory)
      (void)device.releaseAsync(memory, stream);
  }
};

Status checkBounds(const ForwardBounds &have, const ForwardBounds &allowed) {
  for (auto [name, value, limit] : {std::tuple{"batch", have.batch, allowed.batch},
                                    {"seqlen_q", have.max_seqlen_q, allowed.max_seqlen_q},
                                    {"seqlen_k", have.max_seqlen_k, allowed.max_seqlen_k},
                                    {"number of query rows", have.total_q, allowed.total_q},
                                    {"heads_q", have.heads_q, allowed.heads_q}})
    if (value > limit)
      return invalidArgument(std::string("args have a ") + name + " of " + std::to_string(value) +
                             "; the plan was made for at most " + std::to_string(limit));
  return Status::ok();
}

} // namespace

flashplus_status flashplus_plan_create(flashplus_context *context, const flashplus_forward_args *args,
                                       flashplus_plan **out) {
  return guarded([&]() -> Status {
    if (!context || !out)
      return invalidArgument(context ? "out is null" : "context is null");
    *out = nullptr;
    ForwardProblem problem;
    FLASHPLUS_RETURN_IF_ERROR(checkForwardArgs(args, DataPointers::Optional, context->impl->scores(), problem));
    auto device = context->impl->device(problem.device);
    if (!device)
      return device.status();
    auto plan = makePlan(context->impl, **device, problem, /*may_make=*/true);
    if (!plan)
      return plan.status();
    *out = plan->release();
    return Status::ok();
  });
}

void flashplus_plan_destroy(flashplus_plan *plan) { delete plan; }

size_t flashplus_plan_workspace(const flashplus_plan *plan) { return plan ? size_t(plan->record.workspace_bytes) : 0; }

const char *flashplus_plan_describe(const flashplus_plan *plan) {
  const char *text = "";
  if (plan)
    (void)guarded([&] { // fails only for lack of memory
      text = describePlan(*plan).c_str();
      return Status::ok();
    });
  return text;
}

flashplus_status flashplus_plan_run(flashplus_plan *plan, const flashplus_forward_args *args, void *workspace,
                                    size_t workspace_bytes, void *stream) {
  return guarded([&]() -> Status {
    if (!plan)
      return invalidArgument("plan is null");
    ForwardProblem problem;
    FLASHPLUS_RETURN_IF_ERROR(checkForwardArgs(args, DataPointers::Required, plan->context->scores(), problem));
    const DLDevice id = plan->device->id();
    if (problem.device.device_type != id.device_type || problem.device.device_id != id.device_id)
      return invalidArgument("q is on another device than the plan, which is for " + plan->device->name());
    // Rows may turn out better aligned than planned; the kernel for less serves them.
    problem.spec.alignment = std::min(problem.spec.alignment, plan->spec.alignment);
    if (!problem.spec.sameSpec(plan->spec))
      return invalidArgument("args have the spec '" + problem.spec.spec().text() + "'; the plan was made for '" +
                             plan->spec.spec().text() + "'");
    FLASHPLUS_RETURN_IF_ERROR(checkBounds(problem.bounds, plan->bounds));
    if (problem.empty)
      return Status::ok();
    const int64_t needed = plan->record.workspace_bytes;
    if (needed && (!workspace || workspace_bytes < size_t(needed)))
      return invalidArgument("workspace has " + std::to_string(workspace ? workspace_bytes : 0) +
                             " bytes; the plan needs " + std::to_string(needed));
    if (needed && reinterpret_cast<uintptr_t>(workspace) % 256)
      return invalidArgument("workspace is not 256-byte aligned");
    return launch(plan->record, *plan->device, problem, workspace, stream);
  });
}

flashplus_status flashplus_forward(flashplus_context *context, const flashplus_forward_args *args, void *stream) {
  return guarded([&]() -> Status {
    if (!context)
      return invalidArgument("context is null");
    ForwardProblem problem;
    FLASHPLUS_RETURN_IF_ERROR(checkForwardArgs(args, DataPointers::Required, context->impl->scores(), problem));
    auto device = context->impl->device(problem.device);
    if (!device)
      return device.status();
    if (problem.empty)
      return Status::ok();
    const PlanKey key(problem);
    PlanRecord plan;
    const bool remembered = !problem.schedule; // a schedule of the caller's is no part of the key
    if (remembered && context->impl->plans().find(key, plan)) {
      context->impl->kernels().counters.memory_hits += plan.combine ? 2 : 1;
    } else {
      auto capturing = (*device)->capturing(stream);
      if (!capturing)
        return capturing.status();
      auto made = makePlan(context->impl, **device, problem, /*may_make=*/!*capturing);
      if (!made)
        return made.status();
      plan = (*made)->record;
      if (remembered)
        context->impl->plans().put(key, plan);
    }
    Workspace workspace{**device, stream};
    if (plan.workspace_bytes) {
      auto memory = (*device)->allocateAsync(size_t(plan.workspace_bytes), stream);
      if (!memory)
        return memory.status();
      workspace.memory = *memory;
      if (plan.work_counter_bytes)
        FLASHPLUS_RETURN_IF_ERROR((*device)->clearAsync(*memory, size_t(plan.work_counter_bytes), stream));
    }
    return launch(plan, **device, problem, workspace.memory, stream);
  });
}
