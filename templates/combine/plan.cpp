// SPDX-License-Identifier: BSD-3-Clause
#include "templates/combine/layout.h"

namespace flashplus {
namespace {

std::vector<Candidate> cpuCandidates(const KernelSpec &, const Target &, int) {
  return {{{"cpu.combine", {{"rows", kCpuCombineRows}}}}};
}

std::vector<Candidate> gpuCandidates(const KernelSpec &, const Target &, int) {
  return {{{"gpu.combine", {{"rows", kGpuCombineRows}}}}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int rows = schedule.get("rows");
  if (rows < 1 || rows > 16)
    return badKnob(schedule, "rows", "1 to 16");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = isGpu(target.isa) ? rows * 32 : 0;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) { return {.rows = schedule.get("rows")}; }

constexpr int kCpuRows[] = {kCpuCombineRows}, kGpuRows[] = {kGpuCombineRows};
constexpr Knob kCpuKnobs[] = {{"rows", kCpuCombineRows, kCpuRows}};
constexpr Knob kGpuKnobs[] = {{"rows", kGpuCombineRows, kGpuRows}};

} // namespace

const Algorithm kCpuCombine = {"cpu.combine", Operation::Combine, TargetKind::Cpu, /*needs=*/0, cpuCandidates,
                               launch,        traits,             kCpuKnobs};
const Algorithm kGpuCombine = {"gpu.combine", Operation::Combine, TargetKind::Gpu, /*needs=*/0, gpuCandidates,
                               launch,        traits,             kGpuKnobs};

} // namespace flashplus
