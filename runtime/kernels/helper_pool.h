// SPDX-License-Identifier: BSD-3-Clause
// The helper processes of one compiler library: one for each thread that compiles at the moment, kept for the
// next kernels until they leave by themselves.
#pragma once

#include "cache/fork.h"
#include "runtime/kernels/helper_process.h"

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace flashplus {

/// Thread-safe. The child of a fork has none of its parent's processes, and starts its own.
class HelperPool final : private ForkGuarded {
public:
  HelperPool(std::string program, std::string library, const HelperLimits &limits)
      : program_(std::move(program)), library_(std::move(library)), limits_(limits) {
    enlist();
  }
  ~HelperPool() { leave(); }

  /// A process that was kept, or a new one. Null and `failure` if there can't be one.
  std::unique_ptr<HelperProcess> take(HelperProcess::Failure &failure);
  /// Keeps it if it can be asked again.
  void giveBack(std::unique_ptr<HelperProcess> process);
  /// Ends those that are kept.
  void endIdle();
  /// Those that were taken, and are to be ended or given back.
  std::vector<pid_t> processes();

  const std::string &program() const { return program_; }
  const HelperLimits &limits() const { return limits_; }

private:
  bool hold() override { return mutex_.try_lock(); }
  void letGo() override { mutex_.unlock(); }
  void inChild(bool held) override;

  const std::string program_, library_;
  const HelperLimits limits_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HelperProcess>> idle_;
  std::set<HelperProcess *> busy_; ///< Taken; what is behind the pointers is another thread's.
};

} // namespace flashplus
