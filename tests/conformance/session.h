// SPDX-License-Identifier: BSD-3-Clause
// What one run of the suite has: the device that it runs on, one library context, and the account that is
// printed at the end. Device memory goes through the C API, so that the same tests run on every device.
#pragma once

#include "reference/compare.h"
#include "reference/compare_backward.h"
#include "spec/dtype.h"

#include <flashplus/flashplus.h>

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace flashplus::conformance {

/// What the command line chose; read in main.cpp alone.
struct Options {
  std::string device = "cpu"; ///< cpu, cuda:N, emulator (sm_80) or emulator:1 (sm_90a)
  std::string cache_dir;      ///< "": no disk cache, every kernel is compiled by this run.
  bool large =
      false; ///< Also what needs gigabytes of device memory (on the CPU it is sparse and always run).
  /// Pairs: of the cases of one test, so many that any two values meet that meet in one of them (pairs.h).
  enum class Cases { Usual, All, Pairs }; ///< Usual: all on a GPU and in a soak, else pairs.
  Cases cases = Cases::Usual;
};

class Session {
public:
  /// The suite's CPU threads: fixed, because plans depend on them and tests on plans.
  static constexpr int kThreads = 4;

  static Session &get();

  /// Before anything else. `error` says why it failed.
  flashplus_status start(const Options &options, std::string &error);
  void stop();

  flashplus_context *context() const { return context_; }
  DLDevice device() const { return device_; }
  bool onCpu() const { return device_.device_type == kDLCPU; }
  const Options &options() const { return options_; }
  bool pairsOnly() const;
  /// How often to repeat what is repeated in the hope of a race: as often as said, or a share where
  /// pairsOnly(), but `least`.
  int rounds(int whole, int least = 1) const;
  /// Storage types that the device has kernels for.
  std::vector<DType> dtypes() const;

  /// Cases that pairsOnly() left out.
  void recordLeftOut(size_t cases) { left_out_ += cases; }
  void record(DType dtype, const reference::Comparison &comparison, const std::string &name);
  void record(DType dtype, const reference::BackwardComparison &comparison, const std::string &name);
  /// A backward that the device has no kernel for, and what it said.
  void recordRefused(const std::string &message);
  /// Tables: cases and worst error in units of what is allowed, per dtype, of forwards and of backwards; what
  /// was refused; then the kernels compiled.
  std::string summary() const;

private:
  struct Tally {
    int64_t cases = 0, rows = 0;
    double o = 0, lse = 0; ///< Largest error / allowed.
    std::string worst;
  };
  struct BackwardTally {
    int64_t cases = 0;
    std::map<std::string, double> parts; ///< "dq" ...: largest error / allowed, of the largest and the rms.
    double largest = 0;
    std::string worst;
  };
  std::string backwardSummary() const;

  Options options_;
  flashplus_context *context_ = nullptr;
  DLDevice device_ = {kDLCPU, 0};
  std::map<DType, Tally> tallies_;
  std::map<DType, BackwardTally> backward_tallies_;
  int64_t refused_ = 0;
  std::string refusal_; ///< The first.
  size_t left_out_ = 0;
};

/// Owned memory on the session's device.
class DeviceBuffer {
public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes);
  explicit DeviceBuffer(const std::vector<std::byte> &content);
  DeviceBuffer(DeviceBuffer &&other) noexcept;
  DeviceBuffer &operator=(DeviceBuffer &&other) noexcept;
  ~DeviceBuffer();
  /// On a CPU: pages that fault lie before and behind, and `content` begins right behind the one or ends
  /// right before the other. On other devices an ordinary one.
  static DeviceBuffer guarded(const std::vector<std::byte> &content, bool at_start);

  void *data() const { return data_; }
  size_t size() const { return size_; }
  void write(const std::vector<std::byte> &content);
  std::vector<std::byte> read() const;

private:
  void *data_ = nullptr;
  size_t size_ = 0;
  void *pages_ = nullptr; ///< Guarded: all of them.
  size_t pages_size_ = 0;
};

/// Fails the running test with the library's message unless `status` is FLASHPLUS_OK.
void require(flashplus_status status, const std::string &what);

} // namespace flashplus::conformance
