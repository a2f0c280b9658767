// SPDX-License-Identifier: BSD-3-Clause
#include "templates/append/layout.h"

namespace flashplus {
namespace {

std::vector<Candidate> cpuCandidates(const KernelSpec &, const Target &, int) {
  return {{{"cpu.append", {{"rows", kCpuAppendRows}}}}};
}

std::vector<Candidate> gpuCandidates(const KernelSpec &spec, const Target &, int) {
  return {{{"gpu.append", {{"rows", kGpuAppendThreads / gpuAppendLanes(spec)}}}}};
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int rows = schedule.get("rows");
  const bool gpu = isGpu(target.isa);
  const int lanes = gpu ? gpuAppendLanes(spec) : 1, most = gpu ? 1024 / lanes : 512;
  const int least = gpu ? std::max(1, 32 / lanes) : 1;
  if (rows < least || rows > most || rows % least)
    return badKnob(schedule, "rows",
                   (least > 1 ? "a multiple of " : "") + std::to_string(least) + " to " +
                       std::to_string(most));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = gpu ? rows * lanes : 0;
  schema.params_size = sizeof(AppendParams);
  return schema;
}

ItemTraits traits(const Schedule &schedule) { return {.rows = schedule.get("rows"), .side = Side::Append}; }

constexpr int kCpuRows[] = {kCpuAppendRows}, kGpuRows[] = {32};
constexpr Knob kCpuKnobs[] = {{"rows", kCpuAppendRows, kCpuRows}};
constexpr Knob kGpuKnobs[] = {{"rows", 32, kGpuRows}};

} // namespace

const Algorithm kCpuAppend = {
    "cpu.append", Operation::Append, TargetKind::Cpu, /*needs=*/0, cpuCandidates, launch, traits, kCpuKnobs};
const Algorithm kGpuAppend = {
    "gpu.append", Operation::Append, TargetKind::Gpu, /*needs=*/0, gpuCandidates, launch, traits, kGpuKnobs};

} // namespace flashplus
