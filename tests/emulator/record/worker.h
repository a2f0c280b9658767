// SPDX-License-Identifier: BSD-3-Clause
// Cases on the GPU, in a process of their own. An illegal instruction or address leaves a CUDA context, and
// with it the process, of no further use, and a kernel that waits for what never comes does not return; so
// cases run in a worker that is given up after the first that fails, and the next ones in a new one.
#pragma once

#include "tests/emulator/cases.h"

#include <sys/types.h>

namespace flashplus::emu::test {

/// The GPU as a worker found it.
struct Gpu {
  int count = 0; ///< 0: there is none, and `name` says why.
  int major = 0, minor = 0, version = 0; ///< Compute capability; driver version as cuDriverGetVersion counts.
  char name[128] = "";
};

struct GpuResult {
  std::string error; ///< Empty, or which call failed and how; `output` is then of no use.
  std::vector<uint8_t> output;
};

/// The results of cases `first`, `first` + 1, ... in this order; `cases` must outlive it. Not thread-safe.
/// The process that starts it must not have called the CUDA driver, which does not survive a fork.
class Worker {
public:
  Worker(const std::vector<Case> &cases, size_t first);
  /// Ends the process, whatever it does.
  ~Worker();
  Worker(const Worker &) = delete;
  Worker &operator=(const Worker &) = delete;

  const Gpu &gpu() const { return gpu_; }
  /// Of the next case that the GPU is new enough for. After an error there are no more.
  GpuResult next();

private:
  bool read(void *to, size_t bytes, int64_t deadline) const;

  const std::vector<Case> &cases_;
  size_t at_; ///< The next one.
  pid_t pid_ = -1;
  int from_ = -1; ///< What the worker writes.
  Gpu gpu_;
};

/// Whether the GPU is new enough.
bool supports(const Gpu &gpu, const Case &c);

} // namespace flashplus::emu::test
