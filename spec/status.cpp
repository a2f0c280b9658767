// SPDX-License-Identifier: BSD-3-Clause
#include "spec/status.h"

namespace flashplus {

const char *statusCodeName(StatusCode code) {
  switch (code) {
  case StatusCode::Ok:
    return "ok";
  case StatusCode::InvalidArgument:
    return "invalid_argument";
  case StatusCode::Unsupported:
    return "unsupported";
  case StatusCode::NoDevice:
    return "no_device";
  case StatusCode::OutOfMemory:
    return "out_of_memory";
  case StatusCode::CompileFailed:
    return "compile_failed";
  case StatusCode::NotResident:
    return "not_resident";
  case StatusCode::DeviceError:
    return "device_error";
  case StatusCode::IoError:
    return "io_error";
  case StatusCode::Internal:
    return "internal";
  case StatusCode::TimedOut:
    return "timed_out";
  case StatusCode::CompilerCrashed:
    return "compiler_crashed";
  }
  return "unknown";
}

} // namespace flashplus
