// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/kernel_facts.h"

namespace flashplus::tool {

void addKernelFacts(flashplus_context *context, const Json &plan, Json &kernels) {
  for (const Json &step : plan.value("steps", Json::array()))
    addKernelFacts(context, step.value("spec", ""), step.value("schedule", ""), step.value("target", ""),
                   kernels);
}

void addKernelFacts(flashplus_context *context, const std::string &spec, const std::string &schedule,
                    const std::string &target, Json &kernels) {
  for (const Json &there : kernels)
    if (there.value("spec", "") == spec && there.value("schedule", "") == schedule)
      return;
  flashplus_kernel *raw = nullptr;
  if (flashplus_get_kernel(context, spec.c_str(), schedule.c_str(), target.c_str(), &raw) != FLASHPLUS_OK)
    return;
  const std::unique_ptr<flashplus_kernel, void (*)(flashplus_kernel *)> kernel(raw, flashplus_kernel_destroy);
  flashplus_kernel_info info = {};
  info.struct_size = sizeof info;
  if (flashplus_kernel_get_info(raw, &info) != FLASHPLUS_OK)
    return;
  const auto known = [&](int64_t value) { return info.registers < 0 ? Json(nullptr) : Json(value); };
  kernels.push_back({{"spec", spec},
                     {"schedule", schedule},
                     {"target", target},
                     {"kind", info.kind ? info.kind : ""},
                     {"threads", info.threads},
                     {"registers", known(info.registers)},
                     {"spill_bytes", known(info.spill_bytes)},
                     {"stack_bytes", known(info.stack_bytes)},
                     {"shared_memory", info.shared_memory},
                     {"code_bytes", info.code_size}});
}

} // namespace flashplus::tool
