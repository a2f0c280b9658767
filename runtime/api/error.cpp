// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/api/error.h"

#include <algorithm>
#include <cstring>

namespace flashplus {
namespace {

// A fixed buffer: reporting a failed allocation must not allocate.
thread_local char last_message[2048] = "";

} // namespace

flashplus_status report(StatusCode code, const char *message) {
  const size_t size = std::min(std::strlen(message), sizeof last_message - 1);
  std::memcpy(last_message, message, size);
  last_message[size] = 0;
  return static_cast<flashplus_status>(code);
}

flashplus_status reportForkBroken() {
  return report(StatusCode::NotResident,
                "the library cannot be used in this process: it was forked while another thread had been "
                "changing what they share for more than 10 s; fork before that, or start processes anew "
                "(spawn)");
}

} // namespace flashplus

const char *flashplus_last_error(void) { return flashplus::last_message; }

const char *flashplus_status_name(flashplus_status status) {
  return flashplus::statusCodeName(static_cast<flashplus::StatusCode>(status));
}

const char *flashplus_version(void) { return FLASHPLUS_VERSION; }
