// SPDX-License-Identifier: BSD-3-Clause
#include "templates/backward/rows/layout.h"

namespace flashplus {
namespace {

template <int rows> Schedule schedule(const KernelSpec &spec, std::string_view family) {
  return {std::string(family) + "." + std::string(operationInfo(spec.op).name), {{"rows", rows}}};
}

std::vector<Candidate> cpuCandidates(const KernelSpec &spec, const Target &, int) {
  return {{schedule<kCpuBackwardRows>(spec, "cpu")}};
}

std::vector<Candidate> gpuCandidates(const KernelSpec &spec, const Target &, int) {
  return {{schedule<kGpuBackwardRows>(spec, "gpu")}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int rows = schedule.get("rows");
  const bool gpu = isGpu(target.isa);
  if (rows < 1 || rows > (gpu ? 16 : 512))
    return badKnob(schedule, "rows", gpu ? "1 to 16" : "1 to 512");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = gpu ? rows * 32 : 0;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) { return {.rows = schedule.get("rows")}; }

constexpr int kCpuRows[] = {kCpuBackwardRows}, kGpuRows[] = {kGpuBackwardRows};
constexpr Knob kCpuKnobs[] = {{"rows", kCpuBackwardRows, kCpuRows}};
constexpr Knob kGpuKnobs[] = {{"rows", kGpuBackwardRows, kGpuRows}};

} // namespace

const Algorithm kCpuBackwardDelta = {"cpu.backward_delta",
                                     Operation::BackwardDelta,
                                     TargetKind::Cpu,
                                     /*needs=*/0,
                                     cpuCandidates,
                                     launch,
                                     traits,
                                     kCpuKnobs};
const Algorithm kGpuBackwardDelta = {"gpu.backward_delta",
                                     Operation::BackwardDelta,
                                     TargetKind::Gpu,
                                     /*needs=*/0,
                                     gpuCandidates,
                                     launch,
                                     traits,
                                     kGpuKnobs};
const Algorithm kCpuBackwardSum = {"cpu.backward_sum", Operation::BackwardSum, TargetKind::Cpu, /*needs=*/0,
                                   cpuCandidates,      launch,                 traits,          kCpuKnobs};

} // namespace flashplus
