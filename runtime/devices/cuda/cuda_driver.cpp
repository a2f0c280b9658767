// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/cuda/cuda_driver.h"

#include "runtime/kernels/flights.h"

#include <atomic>

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

// Made when the library is loaded, as cache/fork.h says.
Flights &loading = *new Flights;
std::atomic<const Result<Driver> *> driver{nullptr};

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
  if (const Result<Driver> *known = driver.load(std::memory_order_acquire))
    return known->isOk() ? Result<const Driver *>(&**known) : known->status();
  const ForkWaits whole; // the loader's locks and the driver's
  const Flights::Flight flight(loading, "");
  const Result<Driver> *known = driver.load(std::memory_order_acquire);
  if (!known) {
    known = new Result<Driver>(load()); // lives as long as the process
    driver.store(known, std::memory_order_release);
  }
  return known->isOk() ? Result<const Driver *>(&**known) : known->status();
}

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

} // namespace flashplus::cuda
