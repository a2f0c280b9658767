// SPDX-License-Identifier: BSD-3-Clause
// From Status to the C ABI: the code, and the message for flashplus_last_error().
#pragma once

#include "cache/fork.h"
#include "flashplus/flashplus.h"
#include "runtime/api/not_cancelled.h"
#include "runtime/devices/cpu/floating_point.h"
#include "spec/status.h"

#include <exception>
#include <new>
#include <utility>

namespace flashplus {

/// Keeps the message for this thread and returns the code; of a failure that must not allocate.
flashplus_status report(StatusCode code, const char *message);
/// The same of a Status, which is nearly always Ok.
inline flashplus_status report(const Status &status) {
  return status ? FLASHPLUS_OK : report(status.code(), status.message().c_str());
}

/// Says that this process is the child of a fork that came at a bad moment (isForkBroken()).
flashplus_status reportForkBroken();

/// Runs the body of a launch: returns its Status as a code, lets no exception out, and neither uses nor
/// changes the caller's state of floating point. What may wait in it is NotCancelled where it waits, which
/// would cost a launch a tenth of its time.
template <class Body> flashplus_status guardedLaunch(Body body) noexcept {
  if (isForkBroken()) [[unlikely]]
    return reportForkBroken();
  const StandardFloatingPoint standard;
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

/// Runs the body of any other API function, of which no part is cancelled.
template <class Body> flashplus_status guarded(Body body) noexcept {
  const NotCancelled whole;
  return guardedLaunch(std::move(body));
}

} // namespace flashplus
