// SPDX-License-Identifier: BSD-3-Clause
#include "templates/merge/layout.h"

namespace flashplus {
namespace {

std::vector<Candidate> cpuCandidates(const KernelSpec &, const Target &, int) {
  return {{{"cpu.merge", {{"rows", kCpuMergeRows}}}}};
}

std::vector<Candidate> gpuCandidates(const KernelSpec &, const Target &, int) {
  return {{{"gpu.merge", {{"rows", kGpuMergeRows}}}}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int rows = schedule.get("rows");
  if (rows < 1 || rows > 16)
    return badKnob(schedule, "rows", "1 to 16");
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = isGpu(target.isa) ? rows * 32 : 0;
  schema.params_size = sizeof(MergeParams);
  return schema;
}

ItemTraits traits(const Schedule &schedule) { return {.rows = schedule.get("rows")}; }

constexpr int kCpuRows[] = {kCpuMergeRows}, kGpuRows[] = {kGpuMergeRows};
constexpr Knob kCpuKnobs[] = {{"rows", kCpuMergeRows, kCpuRows}};
constexpr Knob kGpuKnobs[] = {{"rows", kGpuMergeRows, kGpuRows}};

} // namespace

const Algorithm kCpuMerge = {"cpu.merge", Operation::Merge, TargetKind::Cpu, /*needs=*/0, cpuCandidates,
                             launch,      traits,           kCpuKnobs};
const Algorithm kGpuMerge = {.name = "gpu.merge",
                             .op = Operation::Merge,
                             .kind = TargetKind::Gpu,
                             .needs = 0,
                             .candidates = gpuCandidates,
                             .launch = launch,
                             .traits = traits,
                             .knobs = kGpuKnobs,
                             .fp32 = true};

} // namespace flashplus
