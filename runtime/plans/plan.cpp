// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/plan.h"

#include <algorithm>

namespace flashplus {

Result<std::unique_ptr<flashplus_plan>> makePlan(const std::shared_ptr<Context> &owner, Device &device,
                                                 const AttentionProblem &problem, bool may_make) {
  Context &context = *owner;
  auto out = std::make_unique<flashplus_plan>();
  out->context = owner;
  out->device = &device;
  out->spec = problem.spec;
  out->spec.score = problem.spec.score->shared; // which lives as long as the plan
  out->bounds = problem.bounds;
  const PlanKey key(problem);
  PlannedSpec *planned = context.specs().find(key);
  if (!planned) {
    const KernelSpec spec = problem.spec.spec();
    FLASHPLUS_RETURN_IF_ERROR(spec.validate());
    std::vector<TunedSchedule> tuned;
    for (const KernelSpec &step : tunedSpecs(spec, device.profile().target))
      for (TunedSchedule &t : context.tuning().find(step, device.model(), device.profile().target))
        tuned.push_back(std::move(t));
    planned = &context.specs().add(key, std::make_unique<PlannedSpec>(spec, device.profile(),
                                                                      device.name() + " " + spec.text(),
                                                                      std::move(tuned)));
  }
  PlanOptions options;
  options.num_splits = problem.num_splits;
  options.batch_invariant = problem.batch_invariant;
  options.any_order = problem.any_order;
  options.tuned = planned->tuned;
  options.rejected = context.rejected(planned->id);
  if (problem.schedule) {
    auto schedule = Schedule::parse(problem.schedule);
    if (!schedule)
      return schedule.status();
    options.schedule = completeSchedule(std::move(*schedule));
  }
  for (Status failure;;) {
    auto plan = planned->planner->plan(problem.bounds, options);
    if (!plan)
      return failure ? plan.status() : failure;
    out->kernels.clear();
    const PlanStep *failed = nullptr;
    for (const PlanStep &step : plan->steps) {
      if (auto known = planned->kernel(step)) {
        context.kernels().counters.memory_hits += 1;
        out->kernels.push_back(std::move(known));
        continue;
      }
      auto kernel = context.kernels().resident({step.spec, step.schedule}, device, may_make);
      if (!kernel) {
        failure = kernel.status();
        failed = &step;
        break;
      }
      planned->remember(step, *kernel);
      out->kernels.push_back(std::move(*kernel));
    }
    if (!failed) {
      out->plan = std::move(*plan);
      const ResidentKernel *kernels[kMaxSteps];
      for (size_t i = 0; i < out->kernels.size(); ++i)
        kernels[i] = out->kernels[i].get();
      out->record = recordOf(out->plan, {kernels, out->kernels.size()});
      return out;
    }
    const bool another = failure.code() == StatusCode::CompileFailed ||
                         failure.code() == StatusCode::CompilerCrashed ||
                         failure.code() == StatusCode::Unsupported;
    // A step without a choice of schedules comes back with the one that was left out.
    if (!another || std::ranges::count(options.rejected, failed->schedule) || context.compiler().isMissing())
      return failure;
    if (context.reject(planned->id, failed->schedule)) {
      context.log("schedule '" + failed->schedule.text() + "' is left out: " + failure.message());
      context.kernels().fellBack({failed->spec, failed->schedule}, device.profile().target,
                                 failure.message());
    }
    options.rejected.push_back(failed->schedule);
  }
}

} // namespace flashplus
