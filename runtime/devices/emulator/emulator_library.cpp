// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/devices/emulator/emulator_library.h"

#include "build_id.h"

#include <dlfcn.h>

namespace flashplus {

Result<std::unique_ptr<Device>> createEmulatorDevice(int number, int threads) {
  // Beside the library (or program) that this code is in; the loader knows its folder.
  std::string path = "libflashplus-emulator.so";
  Dl_info info;
  if (dladdr(reinterpret_cast<const void *>(&createEmulatorDevice), &info) && info.dli_fname) {
    const std::string self = info.dli_fname;
    if (const size_t slash = self.rfind('/'); slash != std::string::npos)
      path = self.substr(0, slash + 1) + path;
  }
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); // stays open: devices live in it
  if (!library) {
    const char *why = dlerror();
    return Status(StatusCode::NoDevice, std::string("the emulator cannot be opened: ") + (why ? why : path));
  }
  auto entry = reinterpret_cast<EmulatorEntry>(dlsym(library, FLASHPLUS_EMULATOR_ENTRY));
  char why[512] = "it has no entry " FLASHPLUS_EMULATOR_ENTRY;
  Device *device = entry ? entry(FLASHPLUS_BUILD_ID, number, threads, why, sizeof why) : nullptr;
  if (!device)
    return Status(StatusCode::NoDevice, "the emulator " + path + ": " + why);
  return std::unique_ptr<Device>(device);
}

} // namespace flashplus
