// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cuda/cuda_driver.h"

#include <dlfcn.h>

namespace flashplus::cuda {
namespace {

Result<Driver> load() {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *why = dlerror();
    return Status(StatusCode::NoDevice,
                  std::string("no CUDA driver: ") + (why ? why : "libcuda.so.1 not found"));
  }
  Driver driver;
#define FLASHPLUS_CUDA_FIND(MEMBER, SYMBOL, PARAMETERS)                                                      \
  driver.MEMBER = reinterpret_cast<decltype(driver.MEMBER)>(dlsym(library, #SYMBOL));                        \
  if (!driver.MEMBER)                                                                                        \
    return Status(StatusCode::NoDevice, "the CUDA driver is too old: it lacks " #SYMBOL);
  FLASHPLUS_CUDA_FUNCTIONS(FLASHPLUS_CUDA_FIND)
#undef FLASHPLUS_CUDA_FIND
#define FLASHPLUS_CUDA_FIND(MEMBER, SYMBOL, PARAMETERS)                                                      \
  driver.MEMBER = reinterpret_cast<decltype(driver.MEMBER)>(dlsym(library, #SYMBOL));
  FLASHPLUS_CUDA_OPTIONAL_FUNCTIONS(FLASHPLUS_CUDA_FIND)
#undef FLASHPLUS_CUDA_FIND
  if (const CUresult result = driver.init(0); result != kSuccess)
    return Status(StatusCode::NoDevice, driver.failure("cuInit", result).message());
  driver.driverGetVersion(&driver.version);
  return driver;
}

} // namespace

Status Driver::failure(const char *call, CUresult result) const {
  const char *name = nullptr, *text = nullptr;
  if (getErrorName)
    getErrorName(result, &name);
  if (getErrorString)
    getErrorString(result, &text);
  const StatusCode code = result == kOutOfMemory ? StatusCode::OutOfMemory : StatusCode::DeviceError;
  return {code, std::string(call) + " failed: " + (name ? name : std::to_string(result)) +
                    (text ? std::string(" (") + text + ")" : "")};
}

Result<const Driver *> openDriver() {
  static const Result<Driver> driver = load();
  if (!driver)
    return driver.status();
  return &*driver;
}

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

} // namespace flashplus::cuda
