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
  return {{{"gpu.backward_delta", {{"rows", DeltaRows::kWarps * DeltaRows::of(spec).perWarp()}}}}};
}

std::vector<Candidate> gpuSumCandidates(const KernelSpec &spec, const Target &, int) {
  return {{schedule<kGpuSumRows>(spec, "gpu")}};
}

Result<LaunchSchema> gpuSumLaunch(const KernelSpec &spec, const Schedule &schedule, const Target &) {
  const int rows = schedule.get("rows");
  if (rows < 16 || rows > 512 || rows % 16)
    return badKnob(schedule, "rows", "a multiple of 16 up to 512");
  if (spec.head_dim_qk % 16 || spec.alignment != 16)
    return Status(StatusCode::Unsupported, "schedule '" + schedule.text() +
                                               "' needs rows aligned to 16 bytes and a head_dim_qk that is a "
                                               "multiple of 16; the spec has alignment " +
                                               std::to_string(spec.alignment) + " and head_dim_qk " +
                                               std::to_string(spec.head_dim_qk));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = rows * 2;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

Result<LaunchSchema> launch(const KernelSpec &spec, const Schedule &schedule, const Target &target) {
  const int rows = schedule.get("rows");
  const bool gpu = isGpu(target.isa);
  const int per_warp = DeltaRows::of(spec).perWarp(); // of a GPU
  if (rows < 1 || (gpu ? rows % per_warp || rows > 16 * per_warp : rows > 512))
    return badKnob(schedule, "rows",
                   !gpu ? "1 to 512"
                        : "a multiple of " + std::to_string(per_warp) + " up to " +
                              std::to_string(16 * per_warp));
  LaunchSchema schema;
  schema.entry = kernelName(spec);
  schema.threads = gpu ? rows / per_warp * 32 : 0;
  schema.params_size = int64_t(paramLayout(spec).size);
  return schema;
}

ItemTraits traits(const Schedule &schedule) { return {.rows = schedule.get("rows")}; }

constexpr int kCpuRows[] = {kCpuBackwardRows}, kGpuRows[] = {DeltaRows::kWarps},
              kGpuSumRowsTried[] = {kGpuSumRows};
constexpr Knob kCpuKnobs[] = {{"rows", kCpuBackwardRows, kCpuRows}};
constexpr Knob kGpuSumKnobs[] = {{"rows", kGpuSumRows, kGpuSumRowsTried}};
constexpr Knob kGpuKnobs[] = {{"rows", DeltaRows::kWarps, kGpuRows}};

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
const Algorithm kGpuBackwardSum = {"gpu.backward_sum", Operation::BackwardSum, TargetKind::Gpu, /*needs=*/0,
                                   gpuSumCandidates,   gpuSumLaunch,           traits,          kGpuSumKnobs};

} // namespace flashplus
