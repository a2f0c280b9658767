// SPDX-License-Identifier: BSD-3-Clause
// What a flashplus_context holds. Everything in it is thread-safe.
#pragma once

#include "cache/fork.h"
#include "cache/source.h"
#include "runtime/arguments/score_table.h"
#include "runtime/devices/cpu/kernel_debug.h"
#include "runtime/devices/cpu/thread_pool.h"
#include "runtime/devices/cuda/cuda_device.h"
#include "runtime/devices/device.h"
#include "runtime/environment.h"
#include "runtime/kernels/compiler_library.h"
#include "runtime/kernels/kernel_table.h"
#include "runtime/kernels/usage_report.h"
#include "runtime/log_lines.h"
#include "runtime/plans/plan_memo.h"
#include "runtime/plans/spec_table.h"
#include "runtime/plans/tuning_record.h"
#include "runtime/plans/workspaces.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace flashplus {

class Context {
public:
  static Result<std::shared_ptr<Context>> create(const flashplus_context_options *options);
  ~Context();

  /// The device, opened on first use; NoDevice (with the reason) if it is not there. Without a lock once it
  /// is open.
  Result<Device *> device(DLDevice id);
  /// The device if it is open, which is all that nearly every launch has to ask. Null if it is not, and of
  /// some that device() has to search for.
  Device *openDeviceOf(DLDevice id) {
    const std::atomic<Device *> *slot = openSlot(id);
    return slot ? slot->load(std::memory_order_acquire) : nullptr;
  }

  KernelTable &kernels() { return *kernels_; }
  CompilerLibrary &compiler() { return *compiler_; }
  KernelStore &store() { return *store_; }
  UsageReport &usage() { return *usage_; }
  /// Of $FLASHPLUS_CACHE_PATH, in the order in which they are looked up before store().
  const std::vector<std::unique_ptr<KernelSource>> &readOnlySources() const { return read_only_sources_; }
  ScoreTable &scores() { return scores_; }
  PlanMemo &plans() { return plans_; }
  SpecTable &specs() { return specs_; }
  Workspaces &workspaces() { return workspaces_; }
  /// Unloads kernels that were neither made nor launched since the last call of this and that no plan has.
  /// Returns how many; Unsupported where the system lacks membarrier(2), InvalidArgument inside another call.
  Result<int64_t> dropIdleKernels();
  /// Read once, when the context was made: plans that it remembers stay right.
  const TuningRecords &tuning() const { return tuning_; }
  /// Schedules of the problem `id` that turned out not to compile, so that nothing tries them twice.
  std::vector<Schedule> rejected(const std::string &id);
  /// False if the schedule was there already.
  bool reject(const std::string &id, const Schedule &schedule);
  /// Tells the embedder's log, if there is one, and keeps the line: a null log hides nothing.
  void log(const std::string &message) const;
  /// What is no warning, for $FLASHPLUS_LOG=info alone.
  void note(const std::string &message) const { lines_->write(LogLines::Level::Info, message); }
  /// The last lines that log() was told, oldest first.
  std::vector<std::string> warnings() const;
  /// All that it was told.
  int64_t warningsCount() const;

  /// Whether values that lie on a device are checked before each launch.
  bool debugsValues() const { return debugs_values_; }
  /// What flashplus_mark_ready makes of compilations where its caller leaves that to the environment.
  KernelTable::Late lateByDefault() const { return late_; }

  /// Text of the last flashplus_describe.
  std::string description;
  ForkSafe<std::mutex> description_mutex; ///< Of that text, and of those of plans.

private:
  Context() = default;
  Result<std::unique_ptr<Device>> openDevice(DLDevice id);
  Device *findDevice(DLDevice id); ///< Null if it is not open.
  /// Where an open device of this id is noted; null for ids that are only in devices_.
  std::atomic<Device *> *openSlot(DLDevice id) {
    if (id.device_type == kDLCPU && id.device_id == 0)
      return &open_cpu_;
    if (id.device_type == kDLCUDA && id.device_id >= 0 && id.device_id < kFastDevices)
      return &open_cuda_[id.device_id];
    return nullptr;
  }

  flashplus_log log_ = nullptr;
  void *log_context_ = nullptr;
  static constexpr size_t kKeptWarnings = 16;
  std::unique_ptr<LogLines> lines_;
  mutable ForkSafe<std::mutex> warnings_mutex_;
  mutable std::vector<std::string> warnings_;
  mutable int64_t warnings_count_ = 0;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<KernelStore> store_;
  std::vector<std::unique_ptr<KernelSource>> read_only_sources_;
  std::unique_ptr<KeyLocks> locks_;
  std::unique_ptr<MissRecord> misses_;
  std::unique_ptr<CompilerLibrary> compiler_;
  bool debugs_values_ = false;
  KernelTable::Late late_ = KernelTable::Late::Warn;
  CudaLimits cuda_limits_;
  std::optional<Target> cpu_target_; ///< Instructions to use at most; all if unset.
  KernelDebug kernel_debug_;
  Flights opening_devices_; ///< By device: opening one takes as long as a driver does.
  ForkSafe<std::mutex> devices_mutex_;
  std::map<std::pair<int, int>, std::unique_ptr<Device>> devices_;
  static constexpr int kFastDevices = 16;
  Workspaces workspaces_; ///< After the devices.
  std::atomic<Device *> open_cpu_{nullptr}, open_cuda_[kFastDevices] = {}; ///< Those in devices_ with small
                                                                           ///< numbers.
  ScoreTable scores_;
  PlanMemo plans_;
  TuningRecords tuning_;
  ForkSafe<std::mutex> rejected_mutex_;
  std::map<std::string, std::vector<Schedule>> rejected_;
  std::unique_ptr<KernelTable> kernels_;
  std::unique_ptr<UsageReport> usage_; ///< After what it counts.
  SpecTable specs_; ///< After the devices, as kernels_: kernels go before the devices that they are loaded
                    ///< on.
};

} // namespace flashplus

struct flashplus_context {
  std::shared_ptr<flashplus::Context> impl; ///< Shared with the plans.
};
