// SPDX-License-Identifier: BSD-3-Clause
// What a flashplus_context holds. Everything in it is thread-safe.
#pragma once

#include "runtime/compiler_library.h"
#include "runtime/device.h"
#include "runtime/environment.h"
#include "runtime/kernel_table.h"
#include "runtime/thread_pool.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace flashplus {

class Context {
public:
  static Result<std::unique_ptr<Context>> create(const flashplus_context_options *options);
  ~Context();

  /// The device, opened on first use; NoDevice (with the reason) if it is not there.
  Result<Device *> device(DLDevice id);

  KernelTable &kernels() { return *kernels_; }
  CompilerLibrary &compiler() { return *compiler_; }
  KernelStore &store() { return *store_; }
  void log(const std::string &message) const;

  /// Text of the last flashplus_describe.
  std::string description;
  std::mutex description_mutex;

private:
  Context() = default;

  flashplus_log log_ = nullptr;
  void *log_context_ = nullptr;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<KernelStore> store_;
  std::unique_ptr<CompilerLibrary> compiler_;
  std::mutex devices_mutex_;
  std::map<std::pair<int, int>, Result<std::unique_ptr<Device>>> devices_;
  std::unique_ptr<KernelTable> kernels_; ///< Last: its kernels go before the devices that they are loaded on.
};

} // namespace flashplus

struct flashplus_context {
  std::unique_ptr<flashplus::Context> impl;
};
