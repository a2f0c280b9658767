// SPDX-License-Identifier: BSD-3-Clause
// A thread that is cancelled in a call of ours ends after it.
#pragma once

#include <pthread.h>

namespace flashplus {

/// Puts pthread_cancel off for a scope. Cancelling unwinds the thread's stack from wherever it waits, through
/// functions that let no exception out, and with workers still busy for it.
class NotCancelled {
public:
  NotCancelled() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NotCancelled() { pthread_setcancelstate(before_, nullptr); }
  NotCancelled(const NotCancelled &) = delete;
  NotCancelled &operator=(const NotCancelled &) = delete;

private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

} // namespace flashplus
