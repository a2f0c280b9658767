// SPDX-License-Identifier: BSD-3-Clause
// flashplus_plan_*, flashplus_forward, flashplus_backward and its plan, flashplus_merge_states: the same
// for every operation that callers ask for.
#include "runtime/api/error.h"
#include "runtime/arguments/backward_args.h"
#include "runtime/arguments/device_values.h"
#include "runtime/arguments/forward_args.h"
#include "runtime/arguments/merge_args.h"
#include "runtime/kernels/calls_in_flight.h"
#include "runtime/plans/bind.h"
#include "runtime/plans/plan.h"
#include "templates/registry.h"

#include <algorithm>
#include <utility>

using namespace flashplus;

namespace {

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

/// Keys in other pages than those that the plan was made for: fine as long as its kernels can copy them.
Status checkPages(const Bounds &have, const Plan &plan) {
  for (const PlanStep &step : plan.steps)
    if (const int needed = itemTraits(step.schedule).key_run; needed > have.key_run)
      return invalidArgument("args have pages of " + std::to_string(have.key_run) +
                             " keys or odd multiples of it, or leftpad_k with a table of pages; the plan "
                             "was made for pages of multiples of " +
                             std::to_string(needed) + " keys without");
  return Status::ok();
}

Status checkBounds(const Bounds &have, const Bounds &allowed) {
  static constexpr std::pair<const char *, int64_t Bounds::*> kLimits[] = {
      {"batch", &Bounds::batch},
      {"seqlen_q", &Bounds::max_seqlen_q},
      {"seqlen_k", &Bounds::max_seqlen_k},
      {"number of query rows", &Bounds::total_q},
      {"heads_q", &Bounds::heads_q},
      {"seqlen of new keys", &Bounds::max_seqlen_new},
  };
  for (auto [name, field] : kLimits)
    if (have.*field > allowed.*field)
      return invalidArgument(std::string("args have a ") + name + " of " + std::to_string(have.*field) +
                             "; the plan was made for at most " + std::to_string(allowed.*field));
  if (have.rotates_q && !allowed.rotates_q)
    return invalidArgument("args have rotary_cos; the plan was made without");
  return Status::ok();
}

/// Of a context that debugsValues(), those that only the device can see; a graph's are nobody's to see.
template <class Args> Status checkValues(Context &context, Device &device, const Args &args, void *stream) {
  if (device.id().device_type == kDLCPU)
    return Status::ok();
  auto capturing = device.capturing(stream);
  if (!capturing || *capturing)
    return capturing.status();
  return checkDeviceValues(args, device, context.scores(), stream);
}

/// What is summed into is zero before.
Status clearSums(Device &, const AttentionProblem &, void *) { return Status::ok(); }
Status clearSums(Device &device, const BackwardProblem &problem, void *stream) {
  for (int i = 0; i < BackwardProblem::ScoreGradients::kMost; ++i)
    if (const int64_t elements = problem.score_gradients.elements[i])
      FLASHPLUS_RETURN_IF_ERROR(
          device.clearAsync(problem.score_gradients.data[i], size_t(elements) * sizeof(float), stream));
  return Status::ok();
}

/// An operation as callers ask for it.
struct ForwardCall {
  using Args = flashplus_forward_args;
  using Problem = ForwardProblem;
  static constexpr auto check = checkForwardArgs;
};
struct BackwardCall {
  using Args = flashplus_backward_args;
  using Problem = BackwardProblem;
  static constexpr auto check = checkBackwardArgs;
};
struct MergeCall {
  using Args = flashplus_merge_args;
  using Problem = MergeProblem;
  static constexpr auto check = checkMergeArgs;
};

template <class Call>
flashplus_status createPlan(flashplus_context *context, const typename Call::Args *args,
                            flashplus_plan **out) {
  return guarded([&]() -> Status {
    if (!context || !out)
      return invalidArgument(context ? "out is null" : "context is null");
    *out = nullptr;
    typename Call::Problem problem;
    FLASHPLUS_RETURN_IF_ERROR(Call::check(args, DataPointers::Optional, context->impl->scores(), problem));
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

template <class Call>
flashplus_status runPlan(flashplus_plan *plan, const typename Call::Args *args, void *workspace,
                         size_t workspace_bytes, void *stream) {
  return guardedLaunch([&]() -> Status {
    if (!plan)
      return invalidArgument("plan is null");
    typename Call::Problem problem;
    FLASHPLUS_RETURN_IF_ERROR(Call::check(args, DataPointers::Required, plan->context->scores(), problem));
    const DLDevice id = plan->device->id();
    if (problem.device.device_type != id.device_type || problem.device.device_id != id.device_id)
      return invalidArgument("q is on another device than the plan, which is for " + plan->device->name());
    // Rows may turn out better aligned than planned; the kernel for less serves them.
    problem.spec.alignment = std::min(problem.spec.alignment, plan->spec.alignment);
    if (!problem.spec.sameSpec(plan->spec))
      return invalidArgument("args have the spec '" + problem.spec.spec().text() +
                             "'; the plan was made for '" + plan->spec.spec().text() + "'");
    FLASHPLUS_RETURN_IF_ERROR(checkBounds(problem.bounds, plan->bounds));
    if (problem.bounds.key_run < plan->bounds.key_run)
      FLASHPLUS_RETURN_IF_ERROR(checkPages(problem.bounds, plan->plan));
    if (problem.empty)
      return clearSums(*plan->device, problem, stream);
    if (plan->context->debugsValues())
      FLASHPLUS_RETURN_IF_ERROR(checkValues(*plan->context, *plan->device, *args, stream));
    const int64_t needed = plan->record.workspace_bytes;
    if (needed && (!workspace || workspace_bytes < size_t(needed)))
      return invalidArgument("workspace has " + std::to_string(workspace ? workspace_bytes : 0) +
                             " bytes; the plan needs " + std::to_string(needed));
    if (needed && reinterpret_cast<uintptr_t>(workspace) % 256)
      return invalidArgument("workspace is not 256-byte aligned");
    FLASHPLUS_RETURN_IF_ERROR(clearSums(*plan->device, problem, stream));
    return launch(plan->record, *plan->device, problem, workspace, stream);
  });
}

/// What the memo does not have. Out of the way of launches, which need none of its room.
[[gnu::noinline]] Status makeRecord(flashplus_context &context, Device &device,
                                    const AttentionProblem &problem, void *stream, LaunchRecord &out) {
  const NotCancelled whole;
  auto capturing = device.capturing(stream);
  if (!capturing)
    return capturing.status();
  auto made = makePlan(context.impl, device, problem, /*may_make=*/!*capturing);
  if (!made)
    return made.status();
  out = (*made)->record;
  return Status::ok();
}

template <class Call>
flashplus_status run(flashplus_context *context, const typename Call::Args *args, void *stream) {
  return guardedLaunch([&]() -> Status {
    if (!context)
      return invalidArgument("context is null");
    typename Call::Problem problem;
    FLASHPLUS_RETURN_IF_ERROR(Call::check(args, DataPointers::Required, context->impl->scores(), problem));
    Device *device = context->impl->openDeviceOf(problem.device);
    if (!device) {
      auto opened = context->impl->device(problem.device);
      if (!opened)
        return opened.status();
      device = *opened;
    }
    if (problem.empty)
      return clearSums(*device, problem, stream);
    if (context->impl->debugsValues())
      FLASHPLUS_RETURN_IF_ERROR(checkValues(*context->impl, *device, *args, stream));
    const PlanKey key(problem);
    const CallInFlight here; // what the memo gives stays
    LaunchRecord plan;
    const bool remembered = !problem.schedule; // a schedule of the caller's is no part of the key
    if (remembered && context->impl->plans().find(key, plan)) {
      context->impl->kernels().counters.memory_hits.add(plan.num_steps, here);
    } else {
      FLASHPLUS_RETURN_IF_ERROR(makeRecord(*context, *device, problem, stream, plan));
      if (remembered)
        context->impl->plans().put(key, plan);
    }
    Workspace workspace{*device, stream};
    Workspaces::Lease kept;
    if (plan.workspace_bytes) {
      auto lease = context->impl->workspaces().borrow(*device, size_t(plan.workspace_bytes),
                                                      size_t(plan.zeroed_bytes), stream);
      if (!lease)
        return lease.status();
      kept = std::move(*lease);
    }
    if (plan.workspace_bytes && !kept.memory()) {
      auto memory = device->allocateAsync(size_t(plan.workspace_bytes), stream);
      if (!memory)
        return memory.status();
      workspace.memory = *memory;
      if (plan.zeroed_bytes)
        FLASHPLUS_RETURN_IF_ERROR(device->clearAsync(*memory, size_t(plan.zeroed_bytes), stream));
    }
    FLASHPLUS_RETURN_IF_ERROR(clearSums(*device, problem, stream));
    return launch(plan, *device, problem, kept.memory() ? kept.memory() : workspace.memory, stream);
  });
}

} // namespace

flashplus_status flashplus_plan_create(flashplus_context *context, const flashplus_forward_args *args,
                                       flashplus_plan **out) {
  return createPlan<ForwardCall>(context, args, out);
}

flashplus_status flashplus_backward_plan_create(flashplus_context *context,
                                                const flashplus_backward_args *args, flashplus_plan **out) {
  return createPlan<BackwardCall>(context, args, out);
}

void flashplus_plan_destroy(flashplus_plan *plan) {
  const NotCancelled whole;
  delete plan;
}

size_t flashplus_plan_workspace(const flashplus_plan *plan) {
  return plan ? size_t(plan->record.workspace_bytes) : 0;
}

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
  return runPlan<ForwardCall>(plan, args, workspace, workspace_bytes, stream);
}

flashplus_status flashplus_backward_plan_run(flashplus_plan *plan, const flashplus_backward_args *args,
                                             void *workspace, size_t workspace_bytes, void *stream) {
  return runPlan<BackwardCall>(plan, args, workspace, workspace_bytes, stream);
}

flashplus_status flashplus_forward(flashplus_context *context, const flashplus_forward_args *args,
                                   void *stream) {
  return run<ForwardCall>(context, args, stream);
}

flashplus_status flashplus_backward(flashplus_context *context, const flashplus_backward_args *args,
                                    void *stream) {
  return run<BackwardCall>(context, args, stream);
}

flashplus_status flashplus_merge_states(flashplus_context *context, const flashplus_merge_args *args,
                                        void *stream) {
  return run<MergeCall>(context, args, stream);
}
