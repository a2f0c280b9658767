// SPDX-License-Identifier: BSD-3-Clause
// --device: which device a verb runs on.
#pragma once

#include "tools/flashplus/command.h"

namespace flashplus::tool {

/// Wakes the device up, so that the driver's own start is in no time that we report.
Status wakeDevice(flashplus_context *context, DLDevice device);

/// "auto" (the first GPU that is there, if `gpu_wanted`, else the CPU), "cpu", "cuda", "cuda:N" or
/// "emulator". Nothing is described here: that would open the compiler, which a warm start must not need.
Result<DLDevice> chooseDevice(const std::string &flag, flashplus_context *context, bool gpu_wanted);

} // namespace flashplus::tool
