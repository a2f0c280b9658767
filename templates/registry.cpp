// SPDX-License-Identifier: BSD-3-Clause
#include "templates/registry.h"

#include <algorithm>

namespace flashplus {
namespace {

constexpr const Algorithm *kAlgorithms[] = {
    &kCpuFlash,         &kCpuStream,         &kSm90Flash,      &kSm80Flash,        &kSm90Decode,
    &kSm80Decode,       &kCpuCombine,        &kGpuCombine,     &kCpuBackwardDelta, &kGpuBackwardDelta,
    &kCpuBackwardSum,   &kCpuBackward,       &kSm90BackwardKV, &kSm80BackwardKV,   &kSm90BackwardQ,
    &kSm80BackwardQ,    &kCpuAppend,         &kGpuAppend,      &kCpuMerge,         &kGpuMerge,
    &kCpuBackwardScore, &kSm80BackwardScore, &kGpuBackwardSum, &kSm90Backward};

bool isFor(const Algorithm &a, const SpecFields &spec, const Target &target) {
  return a.op == spec.op && a.runsOn(target.isa) && (a.pages || !spec.pagedKeys());
}

} // namespace

const Algorithm *findAlgorithm(std::string_view name) {
  for (const Algorithm *a : kAlgorithms)
    if (a->name == name)
      return a;
  return nullptr;
}

Status checkDTypes(const SpecFields &spec, const Target &target) {
  const bool fp32 = std::ranges::any_of(
      kAlgorithms, [&](const Algorithm *a) { return a->fp32 && isFor(*a, spec, target); });
  if (isGpu(target.isa) && spec.dtype == DType::F32 && !fp32)
    return {StatusCode::Unsupported,
            "dtype fp32 is not supported on " + target.text() + "; use fp16 or bf16"};
  for (auto [name, dtype] : {std::pair{"dtype_kv", spec.dtypeKV()}, {"dtype_o", spec.dtypeO()}})
    if (dtype != spec.dtype)
      return {StatusCode::Unsupported, std::string(name) + " is " + std::string(dtypeName(dtype)) +
                                           "; no algorithm takes another than q's, " +
                                           std::string(dtypeName(spec.dtype))};
  return Status::ok();
}

Status badKnob(const Schedule &schedule, std::string_view name, std::string_view allowed) {
  return {StatusCode::Unsupported, "schedule '" + schedule.text() + "': " + std::string(name) + " is " +
                                       std::to_string(schedule.get(name)) + "; it must be " +
                                       std::string(allowed)};
}

Status fitsSharedMemory(const Schedule &schedule, int64_t bytes, const Target &target) {
  if (bytes <= target.sharedMemoryPerBlock())
    return Status::ok();
  return {StatusCode::Unsupported, "schedule '" + schedule.text() + "' needs " + std::to_string(bytes) +
                                       " bytes of shared memory; " + target.text() + " has " +
                                       std::to_string(target.sharedMemoryPerBlock())};
}

Status fitsRegisters(const Schedule &schedule, int needed, int most) {
  if (needed <= most)
    return Status::ok();
  return {StatusCode::Unsupported, "schedule '" + schedule.text() + "' needs " + std::to_string(needed) +
                                       " registers a thread for accumulators; at most " +
                                       std::to_string(most) + " are allowed"};
}

std::vector<Candidate> feasibleCandidates(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<Candidate> result;
  if (!checkDTypes(spec, device.target))
    return result;
  for (const Algorithm *a : kAlgorithms)
    if (isFor(*a, spec, device.target))
      for (Candidate &c : a->candidates(spec, device.target, device.shared_memory_per_block)) {
        c.item = a->traits(c.schedule);
        result.push_back(std::move(c));
      }
  return result;
}

std::vector<Schedule> feasibleSchedules(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<Schedule> schedules;
  for (Candidate &c : feasibleCandidates(spec, device))
    schedules.push_back(std::move(c.schedule));
  return schedules;
}

std::vector<Schedule> scheduleSpace(const KernelSpec &spec, const DeviceProfile &device) {
  std::vector<Schedule> result;
  for (const Algorithm *a : kAlgorithms) {
    if (!isFor(*a, spec, device.target))
      continue;
    std::vector<Schedule> made{{std::string(a->name), {}}};
    for (const Knob &knob : a->knobs) {
      std::vector<Schedule> longer;
      for (const Schedule &s : made)
        for (int value : knob.values) {
          longer.push_back(s);
          longer.back().knobs.emplace(knob.name, value);
        }
      made = std::move(longer);
    }
    for (Schedule &s : made)
      if (runsOnDevice(spec, s, device) && (!a->worth_trying || a->worth_trying(spec, s, device.target)))
        result.push_back(std::move(s));
  }
  return result;
}

std::vector<std::string> algorithmNames() {
  std::vector<std::string> names;
  for (const Algorithm *a : kAlgorithms)
    names.emplace_back(a->name);
  return names;
}

Schedule completeSchedule(Schedule schedule) {
  if (const Algorithm *a = findAlgorithm(schedule.algorithm))
    for (const Knob &knob : a->knobs)
      schedule.knobs.emplace(knob.name, knob.standard);
  return schedule;
}

Result<LaunchSchema> launchSchema(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const Algorithm *a = findAlgorithm(schedule.algorithm);
  if (!a || !isFor(*a, spec, target)) {
    std::string known;
    for (const Algorithm *k : kAlgorithms)
      if (isFor(*k, spec, target))
        known += (known.empty() ? "" : ", ") + std::string(k->name);
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "': '" + schedule.algorithm +
                                               "' is not an algorithm for this operation" +
                                               (spec.pagedKeys() ? " with keys=paged" : "") + " on " +
                                               target.text() + "; there is " + known);
  }
  if (spec.append)
    return Status(StatusCode::Unsupported,
                  "append is 1; the append is a step of its own, and no kernel's spec has it");
  if (spec.op == Operation::Backward && spec.score_grads)
    return Status(StatusCode::Unsupported,
                  "score_grads is " + std::to_string(spec.score_grads) +
                      "; the gradients of a score's inputs are a step of their own, backward_score");
  FLASHPLUS_RETURN_IF_ERROR(checkDTypes(spec, target));
  for (const auto &[name, value] : schedule.knobs)
    if (std::ranges::find(a->knobs, name, &Knob::name) == a->knobs.end()) {
      std::string known;
      for (const Knob &knob : a->knobs)
        known += (known.empty() ? "" : ", ") + std::string(knob.name);
      return Status(StatusCode::Unsupported, "schedule '" + schedule.text() + "': '" + name +
                                                 "' is not a knob of " + schedule.algorithm + "; there is " +
                                                 known);
    }
  auto launch = a->launch(spec, schedule, target);
  if (launch && spec.results == Results::Merged && !a->traits(schedule).merges)
    return Status(StatusCode::Unsupported,
                  "results is merged; " + schedule.algorithm + " does not merge shares of the keys");
  return launch;
}

bool runsOnDevice(const KernelSpec &spec, const Schedule &schedule, const DeviceProfile &device) {
  const auto launch = launchSchema(spec, schedule, device.target);
  return launch && (!isGpu(device.target.isa) || launch->shared_memory <= device.shared_memory_per_block);
}

ItemTraits itemTraits(const Schedule &schedule) {
  const Algorithm *a = findAlgorithm(schedule.algorithm);
  return a ? a->traits(schedule) : ItemTraits{};
}

} // namespace flashplus
