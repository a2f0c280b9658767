// SPDX-License-Identifier: BSD-3-Clause
// Problems made ready to be timed on one device. All of them read the same random tensors and write the same
// outputs, so that a grid of large problems needs the memory of the largest.
#pragma once

#include "tools/flashplus/bench_case.h"
#include "tools/flashplus/tensors.h"

#include <map>
#include <memory>

namespace flashplus::tool {

/// A device that is about to be timed, awake, and what a result file says of it.
struct TimedDevice {
  Context context;
  DLDevice device = {};
  Json facts; ///< machineFacts()

  /// The one that the flags name.
  static Result<TimedDevice> open(const CaseFlags &flags);
  bool isGpu() const { return device.device_type == kDLCUDA; }
};

struct PlanDeleter {
  void operator()(flashplus_plan *plan) const { flashplus_plan_destroy(plan); }
};
using Plan = std::unique_ptr<flashplus_plan, PlanDeleter>;
Result<Plan> createPlan(flashplus_context *context, const flashplus_forward_args &args);
Result<Plan> createPlan(flashplus_context *context, const flashplus_backward_args &args);

/// Device memory; freed with it. Must not outlive the context.
class DeviceMemory {
public:
  DeviceMemory() = default;
  static Result<DeviceMemory> make(flashplus_context *context, DLDevice device, size_t bytes);
  DeviceMemory(DeviceMemory &&other) noexcept;
  DeviceMemory &operator=(DeviceMemory &&other) noexcept;
  ~DeviceMemory();
  char *get() const { return static_cast<char *>(memory_); }
  size_t size() const { return size_; }

private:
  flashplus_context *context_ = nullptr;
  DLDevice device_ = {};
  void *memory_ = nullptr;
  size_t size_ = 0;
};

/// A case under one schedule, planned. Points into a Workbench, which must outlive it.
class Prepared {
public:
  Prepared(const Prepared &) = delete;
  ~Prepared();
  const BenchCase &problem() const { return case_; }
  const Json &plan() const { return description_; }
  /// Of the steps whose schedules are chosen: the forward, or the kernels of gradients, with "; " between
  /// two.
  std::string schedule() const;
  /// A step whose schedule is chosen.
  struct Step {
    std::string spec, schedule;
  };
  std::vector<Step> steps() const;
  /// Enqueues what a backward reads of its forward, o and lse, which all problems share; nothing for a
  /// forward.
  Status settle() const;
  /// Enqueues one forward, or one backward.
  Status run() const;

private:
  friend class Workbench;
  Prepared() = default;
  flashplus_context *context_ = nullptr;
  BenchCase case_;
  std::vector<const Json *> chosenSteps() const;
  Status addCache(DLDevice device);
  Status put(const io::Tensor &host, const DLTensor *&to, DLDevice device);
  DLTensor q_ = {}, k_ = {}, v_ = {}, o_ = {}, lse_ = {}, dout_ = {}, dq_ = {}, dk_ = {}, dv_ = {};
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<DeviceTensor> own_; ///< cu_seqlens, slopes, what a cache has besides its rows.
  /// Calls of a problem that reads memory take turns among places of k and v that do not overlap.
  std::vector<std::pair<void *, void *>> places_;
  mutable size_t turn_ = 0;
  mutable DLTensor k_now_ = {}, v_now_ = {};
  std::string schedule_text_;
  flashplus_forward_args args_ = FLASHPLUS_FORWARD_ARGS_INIT;
  flashplus_backward_args backward_args_ = FLASHPLUS_BACKWARD_ARGS_INIT;
  Plan plan_;
  Json description_;
  DeviceMemory workspace_;
};

class Workbench {
public:
  /// Memory for any of `cases`, filled.
  static Result<std::unique_ptr<Workbench>> make(flashplus_context *context, DLDevice device,
                                                 const std::vector<BenchCase> &cases);

  /// Plans `problem` under `schedule`: "" = the library's choice, "name=value,..." changes some of that
  /// choice's knobs, else the text of a schedule, with blanks or commas. Compiles what is missing.
  /// Thread-safe.
  Result<std::unique_ptr<Prepared>> prepare(const BenchCase &problem, const std::string &schedule) const;

  /// Seconds of one of `calls` forwards, or backwards, enqueued together.
  Result<double> time(const Prepared &prepared, int calls) const;
  struct Calls {
    int count;
    double seconds; ///< That they take.
  };
  /// Warms up and returns how many calls take about `milliseconds`, one at least.
  Result<Calls> calibrate(const Prepared &prepared, double milliseconds) const;

private:
  Workbench() = default;
  struct Inputs {
    DeviceMemory q, k, v, dout;
  };
  flashplus_context *context_ = nullptr;
  DLDevice device_ = {};
  std::map<DType, Inputs> inputs_;
  DeviceMemory o_, lse_, dq_, dk_, dv_;
};

/// As Workbench::prepare: the schedule that `text` means where the library chooses `chosen`. Failures name
/// `flag`.
Result<std::string> scheduleText(const std::string &flag, const std::string &text, const std::string &chosen);

} // namespace flashplus::tool
