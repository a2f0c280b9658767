// SPDX-License-Identifier: BSD-3-Clause
// A Case with memory: its tensors on the host and on the device, the arguments of the call and the
// reference's view of the same numbers. Whatever is not a valid token, before, between and after, is NaN;
// outputs are NaN before a run.
#pragma once

#include "reference/compare.h"
#include "tests/conformance/problem.h"
#include "tests/conformance/session.h"

#include <deque>
#include <memory>

namespace flashplus::conformance {

/// One allocation, on the host and on the device.
struct Memory {
  std::vector<std::byte> host;
  DeviceBuffer device;
};

/// A strided tensor inside a Memory; `offset` and `strides` in elements.
struct View {
  std::shared_ptr<Memory> memory;
  int64_t offset = 0;
  reference::Strides strides;
  std::vector<int64_t> dl_shape, dl_strides;
  DLTensor tensor = {};
};

class Instance {
public:
  explicit Instance(const Case &c);
  Instance(const Instance &) = delete;
  Instance &operator=(const Instance &) = delete;

  const Case &problem() const { return case_; }
  const flashplus_forward_args &args() const { return args_; }
  const reference::Problem &reference() const { return reference_; }

  /// Poison into o and lse, a known number into the tile counter.
  void resetOutputs();
  /// What lies in o's and lse's memory on the device now.
  std::vector<std::byte> readO() const { return o_.memory->device.read(); }
  std::vector<std::byte> readLse() const { return lse_.memory->device.read(); }
  /// Tiles counted since.
  int64_t readTiles() const;
  bool inputsUnchanged() const;

  /// o and lse in the layout of reference::Output; rows outside the sequences are 0.
  reference::Actual unpack(const std::vector<std::byte> &o, const std::vector<std::byte> &lse) const;
  /// Whether everything but the valid rows' elements is still poison; names the first place that is not.
  bool untouched(const std::vector<std::byte> &o, const std::vector<std::byte> &lse,
                 std::string &where) const;

private:
  void makeInputs();
  void makeOutputs();
  void makeLengths();
  void makeScore();
  View view(DLDataType type, const Layout &layout, int64_t rows, int64_t heads, int64_t dim);
  void sliceQkv();
  void write(View &view, char tensor, int64_t heads, int64_t dim);
  DLTensor *finish(View &view, DLDataType type);
  DLTensor *vector(const void *data, DLDataType type, std::vector<int64_t> shape, bool guarded = false);
  template <class Body> void forValidRows(Body body) const;

  const Case case_;
  flashplus_forward_args args_ = FLASHPLUS_FORWARD_ARGS_INIT;
  reference::Problem reference_;
  View q_, k_, v_, o_, lse_;
  DeviceBuffer tiles_;
  std::deque<View> small_; ///< Lengths, slopes and auxiliary tensors.
  std::vector<int32_t> cu_q_, cu_k_;
  std::deque<std::vector<float>> floats_;
  std::vector<flashplus_score_tensor> score_tensors_;
  std::vector<flashplus_score_scalar> score_scalars_;
  float scale_ = 0;
};

} // namespace flashplus::conformance
