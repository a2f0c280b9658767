// SPDX-License-Identifier: BSD-3-Clause
// From Status to the C ABI: the code, and the message for flashplus_last_error().
#pragma once

#include "cache/fork.h"
#include "flashplus/flashplus.h"
#include "spec/status.h"

#include <exception>
#include <new>

namespace flashplus {

/// Keeps the message for this thread and returns the code.
flashplus_status report(const Status &status);
/// The same for a failure that must not allocate.
flashplus_status report(StatusCode code, const char *message);

/// Says that this process is the child of a fork that came at a bad moment (isForkBroken()).
flashplus_status reportForkBroken();

/// Runs the body of an API function: returns its Status as a code and lets no exception out.
template <class Body> flashplus_status guarded(Body body) noexcept {
  if (isForkBroken()) [[unlikely]]
    return reportForkBroken();
  try {
    return report(body());
  } catch (const std::bad_alloc &) {
    return report(StatusCode::OutOfMemory, "out of host memory");
  } catch (const std::exception &e) {
    return report(StatusCode::Internal, e.what());
  } catch (...) { // a callback of the embedder's may throw anything
    return report(StatusCode::Internal, "an exception that is not a std::exception");
  }
}

} // namespace flashplus
