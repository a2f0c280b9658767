// SPDX-License-Identifier: BSD-3-Clause
// The emulator is a library of its own, libflashplus-emulator.so beside this one, opened when its device is
// asked for: what is shipped does not grow by it. It implements the table of device.h, so both are of one
// build or refuse each other.
#pragma once

#include "runtime/devices/device.h"

namespace flashplus {

/// Device kDLExtDev `number` (0: sm_80), which runs on `threads` host threads. NoDevice says why there is
/// none.
Result<std::unique_ptr<Device>> createEmulatorDevice(int number, int threads);

/// The library's only C++ entry: a device, or null with the reason in `why` (NUL-terminated).
#define FLASHPLUS_EMULATOR_ENTRY "flashplus_emulator_create_device"
using EmulatorEntry = Device *(*)(const char *build_id, int number, int threads, char *why, size_t why_size);

} // namespace flashplus
