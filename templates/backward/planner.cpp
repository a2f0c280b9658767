// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/planner.h"

#include "templates/backward/cpu_backward/layout.h"
#include "templates/backward/rows/dq_sums_rows.h"

#include <algorithm>

namespace flashplus {
namespace {

/// The step `op` of a backward, with the fields that it has.
KernelSpec stepSpec(const KernelSpec &backward, Operation op) {
  const OperationInfo &info = operationInfo(op);
  KernelSpec spec;
  spec.op = op;
  for (const SpecFieldInfo &field : specFields())
    if (field.isIn(info))
      field.set(spec, field.get(backward));
  if (info.hasScore())
    spec.score = backward.score;
  else
    spec.alignment = dtypeBytes(spec.dtype); // rows are read element by element or by masked vectors
  return spec;
}

/// Shares of the keys, of which each has an item a (batch entry, key head): enough to keep many workers busy,
/// as far as their parts of dq stay small. By the problem alone: dq is the sum of as many parts whatever
/// device there is.
int sharesOf(const Bounds &bounds, const ItemTraits &item, int64_t part_bytes) {
  constexpr int64_t kItems = 32, kMostBytes = int64_t(64) << 20;
  const int64_t items = std::max<int64_t>(1, bounds.batch * bounds.heads_k);
  const int64_t tiles = ceilDiv(bounds.max_seqlen_k, item.keys),
                room = kMostBytes / std::max<int64_t>(1, part_bytes);
  return int(std::max<int64_t>(1, std::min({ceilDiv(kItems, items), tiles, room})));
}

/// Without what is a step of its own.
KernelSpec withoutScoreGrads(KernelSpec spec) {
  spec.score_grads = 0;
  return spec;
}

/// Of one kernel for all three gradients. On a GPU it adds dq up in memory (ItemTraits::adds_dq): a part that
/// is still to be summed.
KernelSpec wholeSpec(const KernelSpec &backward, const Target &target) {
  KernelSpec spec = withoutScoreGrads(backward);
  if (isGpu(target.isa))
    spec.results = Results::Partial;
  return spec;
}

/// A step that reads or writes whole rows: on a GPU the faster the better they are aligned.
KernelSpec rowsSpec(const KernelSpec &backward, Operation op, const Target &target) {
  KernelSpec spec = stepSpec(backward, op);
  if (isGpu(target.isa))
    spec.alignment = backward.alignment;
  return spec;
}

/// Whether blocks take their items from a counter: where items differ in length and there is more than one a
/// block.
bool wantsWorkCounter(const PlanStep &step, const DeviceProfile &device) {
  return step.spec.bounded_right && step.launch.blocks_per_sm &&
         step.work_items > int64_t(step.launch.blocks_per_sm) * device.multiprocessors;
}

constexpr int64_t alignedBytes(int64_t bytes) { return ceilDiv(bytes, 256) * 256; }

} // namespace

BackwardPlanner::BackwardPlanner(const KernelSpec &spec, const DeviceProfile &device)
    : spec_(spec), device_(device), delta_(step(rowsSpec(spec, Operation::BackwardDelta, device.target))),
      whole_(step(wholeSpec(spec, device.target))),
      sum_(step(rowsSpec(spec, Operation::BackwardSum, device.target))),
      kv_(step(stepSpec(spec, Operation::BackwardKV))), q_(step(stepSpec(spec, Operation::BackwardQ))) {
  if (spec.score_grads)
    score_ = step(stepSpec(spec, Operation::BackwardScore));
}

BackwardPlanner::Step BackwardPlanner::step(KernelSpec spec) const {
  auto candidates = feasibleCandidates(spec, device_);
  return {std::move(spec), std::move(candidates)};
}

Result<BackwardPlanner::Choice> BackwardPlanner::choose(const Step &step, const Bounds &bounds,
                                                        const PlanOptions &options) const {
  if (options.schedule)
    if (const Algorithm *a = findAlgorithm(options.schedule->algorithm); a && a->op == step.spec.op) {
      if (auto known = launchSchema(step.spec, *options.schedule, device_.target); !known)
        return known.status();
      return Choice{{.schedule = *options.schedule, .item = itemTraits(*options.schedule)}};
    }
  PlanOptions free = options; // what is forced is forced for one step: records still speak for the others
  free.schedule.reset();
  if (const TunedSchedule *tuned = chooseTuned({}, step.spec, bounds, device_, free))
    return Choice{{.schedule = tuned->schedule, .item = itemTraits(tuned->schedule)}, &tuned->record};
  for (const Candidate &c : step.candidates)
    if (!std::ranges::count(options.rejected, c.schedule) && (!c.item.adds_dq || options.any_order))
      return Choice{c};
  FLASHPLUS_RETURN_IF_ERROR(checkDTypes(step.spec, device_.target));
  return Status(StatusCode::Unsupported,
                "no schedule of '" + step.spec.text() + "' fits " + device_.target.text());
}

bool BackwardPlanner::takesWhole(const PlanOptions &options) const {
  const Algorithm *forced = options.schedule ? findAlgorithm(options.schedule->algorithm) : nullptr;
  if (forced && forced->op == Operation::Backward && forced->runsOn(device_.target.isa))
    return true;
  const bool pair = !kv_.candidates.empty() && !q_.candidates.empty();
  if (forced && (forced->op == Operation::BackwardKV || forced->op == Operation::BackwardQ) && pair)
    return false;
  return std::ranges::any_of(whole_.candidates, [&](const Candidate &c) {
    return !std::ranges::count(options.rejected, c.schedule) && (!c.item.adds_dq || options.any_order);
  });
}

std::vector<const BackwardPlanner::Step *> BackwardPlanner::chosenSteps(const PlanOptions &options) const {
  std::vector<const Step *> steps = takesWhole(options) ? std::vector{&whole_} : std::vector{&kv_, &q_};
  if (spec_.score_grads)
    steps.push_back(&score_);
  return steps;
}

Status BackwardPlanner::checkForced(const PlanOptions &options) const {
  if (!options.schedule)
    return Status::ok();
  const Algorithm *a = findAlgorithm(options.schedule->algorithm);
  std::string known;
  if (a && itemTraits(*options.schedule).adds_dq && !options.any_order)
    return Status(StatusCode::Unsupported, "schedule '" + options.schedule->text() +
                                               "' adds dq up in an order that differs from run to run, and "
                                               "any_order is 0; it must be 1");
  for (const Step *step : chosenSteps(options)) {
    if (a && a->op == step->spec.op)
      return Status::ok();
    if (!step->candidates.empty())
      known += (known.empty() ? "" : ", ") + step->candidates.front().schedule.algorithm;
  }
  return Status(StatusCode::Unsupported, "schedule '" + options.schedule->text() + "': '" +
                                             options.schedule->algorithm +
                                             "' is not an algorithm for a backward's gradients on " +
                                             device_.target.text() + "; there is " + known);
}

Status BackwardPlanner::addStep(Plan &plan, const KernelSpec &spec, const Candidate &chosen, int splits,
                                int64_t row_scratch, const Bounds &bounds) const {
  const ItemShape item{
      .rows = chosen.item.rows, .num_splits = splits, .row_scratch = row_scratch, .side = chosen.item.side};
  auto made = makeStep(spec, chosen.schedule, device_.target, item, bounds);
  if (!made)
    return made.status();
  if (wantsWorkCounter(*made, device_)) { // which the next step finds as this one did
    plan.parts[kBackwardCounter] = {0, 8};
    plan.zeroed_bytes = 8;
  }
  plan.steps.push_back(std::move(*made));
  return Status::ok();
}

Result<Plan> BackwardPlanner::plan(const Bounds &bounds, const PlanOptions &options) const {
  if (options.num_splits != 0)
    return invalidArgument("num_splits is " + std::to_string(options.num_splits) +
                           "; of a backward it must be 0");
  FLASHPLUS_RETURN_IF_ERROR(checkForced(options));
  Plan plan;
  plan.schedule_source = options.schedule ? "forced" : "default table";
  const int64_t values = alignedBytes(bounds.total_q * bounds.heads_q * 4);
  plan.parts[kRowLse] = {kWorkspaceZeroed, values};
  plan.parts[kRowDelta] = {kWorkspaceZeroed + values, values};
  plan.workspace_bytes = kWorkspaceZeroed + 2 * values;

  FLASHPLUS_RETURN_IF_ERROR(addChosen(plan, delta_, bounds, {}));
  if (!takesWhole(options)) {
    for (const Step *step : {&kv_, &q_})
      FLASHPLUS_RETURN_IF_ERROR(addChosen(plan, *step, bounds, options));
    FLASHPLUS_RETURN_IF_ERROR(addScoreSteps(plan, bounds, options));
    return plan;
  }
  auto chosen = choose(whole_, bounds, options);
  if (!chosen)
    return chosen.status();
  const Candidate *whole = &chosen->candidate;
  if (chosen->record && !options.schedule)
    plan.schedule_source = *chosen->record;
  const bool adds = whole->item.adds_dq;
  const int64_t rows = adds ? DQSumsRows::ofHead(bounds.total_q, bounds.batch) : bounds.total_q;
  const int64_t part = rows * bounds.heads_q * spec_.head_dim_qk * 4;
  const int shares = adds ? 1 : sharesOf(bounds, whole->item, part);
  KernelSpec spec = whole_.spec;
  spec.results = adds || shares > 1 ? Results::Partial : Results::Final;
  int64_t row_scratch = 0;
  if (spec.isPartial()) {
    plan.parts[kDQParts] = {plan.workspace_bytes, alignedBytes(part * shares)};
    plan.workspace_bytes += plan.parts[kDQParts].bytes;
  } else {
    row_scratch = CpuBackwardLayout::dqRowBytes(spec, device_.target, bounds.group());
  }
  FLASHPLUS_RETURN_IF_ERROR(addStep(plan, spec, *whole, shares, row_scratch, bounds));
  if (spec.isPartial())
    FLASHPLUS_RETURN_IF_ERROR(addChosen(plan, sum_, bounds, {}));
  FLASHPLUS_RETURN_IF_ERROR(addScoreSteps(plan, bounds, options));
  return plan;
}

Status BackwardPlanner::addScoreSteps(Plan &plan, const Bounds &bounds, const PlanOptions &options) const {
  return spec_.score_grads ? addChosen(plan, score_, bounds, options) : Status::ok();
}

Status BackwardPlanner::addChosen(Plan &plan, const Step &step, const Bounds &bounds,
                                  const PlanOptions &options) const {
  auto chosen = choose(step, bounds, options);
  if (!chosen)
    return chosen.status();
  if (chosen->record && !options.schedule)
    plan.schedule_source = *chosen->record;
  return addStep(plan, step.spec, chosen->candidate, 1, 0, bounds);
}

Result<Plan> planBackward(const KernelSpec &spec, const Bounds &bounds, const DeviceProfile &device,
                          const PlanOptions &options) {
  return BackwardPlanner(spec, device).plan(bounds, options);
}

std::vector<KernelSpec> tunedBackwardSteps(const KernelSpec &spec, const Target &target) {
  std::vector<KernelSpec> steps = {wholeSpec(spec, target), stepSpec(spec, Operation::BackwardKV),
                                   stepSpec(spec, Operation::BackwardQ)};
  if (spec.score_grads)
    steps.push_back(stepSpec(spec, Operation::BackwardScore));
  return steps;
}

std::vector<PlannedKernel> reachableBackwardKernels(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<PlannedKernel> result;
  auto add = [&](const KernelSpec &s) {
    const size_t before = result.size();
    for (Schedule &schedule : feasibleSchedules(s, device))
      result.push_back({s, std::move(schedule)});
    return result.size() > before;
  };
  add(rowsSpec(spec, Operation::BackwardDelta, device.target));
  if (spec.score_grads)
    add(stepSpec(spec, Operation::BackwardScore));
  const KernelSpec whole = wholeSpec(spec, device.target);
  const bool adds = isGpu(device.target.isa); // where that is asked for (PlanOptions::any_order)
  if (const bool made = add(whole); adds || !made) {
    if (made)
      add(rowsSpec(spec, Operation::BackwardSum, device.target));
    if (!add(stepSpec(spec, Operation::BackwardKV)) || !add(stepSpec(spec, Operation::BackwardQ)))
      result.clear(); // there is no plan, so that nothing of one is of use
    return result;
  }
  KernelSpec shares = whole;
  shares.results = Results::Partial;
  add(shares);
  add(stepSpec(spec, Operation::BackwardSum));
  return result;
}

} // namespace flashplus
