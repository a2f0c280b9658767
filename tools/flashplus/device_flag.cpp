// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/device_flag.h"

#include <charconv>

namespace flashplus::tool {

Status wakeDevice(flashplus_context *context, DLDevice device) {
  void *memory = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_device_malloc(context, device, 256, &memory)));
  return libraryStatus(flashplus_device_free(context, device, memory));
}

Result<DLDevice> chooseDevice(const std::string &flag, flashplus_context *context, bool gpu_wanted) {
  if (flag == "cpu")
    return DLDevice{kDLCPU, 0};
  if (flag == "emulator")
    return DLDevice{kDLExtDev, 0};
  if (flag == "auto") {
    DLDevice gpu = {kDLCUDA, 0};
    return gpu_wanted && wakeDevice(context, gpu).isOk() ? gpu : DLDevice{kDLCPU, 0};
  }
  std::string ordinal = flag.starts_with("cuda:") ? flag.substr(5) : flag == "cuda" ? "0" : "";
  int value = 0;
  auto [end, error] = std::from_chars(ordinal.data(), ordinal.data() + ordinal.size(), value);
  if (ordinal.empty() || error != std::errc() || end != ordinal.data() + ordinal.size() || value < 0)
    return invalidArgument("--device '" + flag + "': allowed are auto, cpu, cuda, cuda:N and emulator");
  return DLDevice{kDLCUDA, value};
}

} // namespace flashplus::tool
