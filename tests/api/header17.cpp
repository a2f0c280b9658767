// SPDX-License-Identifier: BSD-3-Clause
// The wrapper as strict C++17 without exceptions.
#include <flashplus/flashplus.hpp>

bool refusedWithoutExceptions() {
  flashplus::ForwardArgs args;
  auto spec = flashplus::specOf(args);
  return !spec && spec.error().code == FLASHPLUS_INVALID_ARGUMENT &&
         spec.error().message.find("q is null") == 0;
}
