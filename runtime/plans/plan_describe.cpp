// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/plans/plan.h"

#include <nlohmann/json.hpp>

namespace flashplus {
namespace {

std::string textOf(const flashplus_plan &p) {
  nlohmann::json steps = nlohmann::json::array();
  for (size_t i = 0; i < p.plan.steps.size(); ++i) {
    const PlanStep &step = p.plan.steps[i];
    steps.push_back({{"spec", step.spec.text()},
                     {"schedule", step.schedule.text()},
                     {"target", p.device->profile().target.text()},
                     {"key", p.kernels[i]->code->key.hex()},
                     {"grid", step.work_items},
                     {"threads", step.launch.threads},
                     {"shared_memory", step.launch.shared_memory}});
  }
  // Of the step that attention itself is, or starts with.
  const bool appends = p.plan.steps.front().spec.op == Operation::Append;
  const ItemShape &first = p.plan.steps[appends ? 1 : 0].item;
  return nlohmann::json{{"device", p.device->name()},
                        {"schedule_source", p.plan.schedule_source},
                        {"num_splits", first.num_splits},
                        {"packs_heads", first.packs_heads},
                        {"key_heads", first.key_heads},
                        {"workspace_bytes", p.plan.workspace_bytes},
                        {"steps", std::move(steps)}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); // a path need not be UTF-8
}

} // namespace

const std::string &describePlan(const flashplus_plan &plan) {
  // One for all plans, and not a once_flag, which the child of a fork could find half set.
  const std::lock_guard lock(plan.context->description_mutex);
  if (plan.description.empty())
    plan.description = textOf(plan);
  return plan.description;
}

} // namespace flashplus
