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

/// 0xffff and 0xffffffff are NaN in every storage type, and none that is computed.
inline constexpr std::byte kPoison{0xff};

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
  virtual ~Instance() = default;
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

protected:
  View view(DLDataType type, const Layout &layout, int64_t rows, int64_t heads, int64_t dim);
  /// fp32, of the shape of lse.
  View statistic() const;
  /// Three views of one tensor (.., rows, hq + 2 hk, d), which have the heads of q, k and v.
  void sliceQkv(const Layout &layout, View &q, View &k, View &v);
  /// Values of the valid rows; 'q', 'g' (dout) and 'e' (dlse) have the query rows, others the key rows.
  void write(View &view, char tensor, DType dtype, int64_t dim);
  DLTensor *finish(View &view, DLDataType type);
  void resetTiles();
  bool unchanged(const View &view) const { return view.memory->device.read() == view.memory->host; }
  static DLDataType typeOf(DType dtype);
  /// body(reference row, head, element of v in its memory, entry of the batch, row in the sequence)
  template <class Body> void forRows(const View &v, bool keys, Body body) const {
    for (int64_t b = 0; b < case_.batches(); ++b)
      for (int64_t i = 0; i < (keys ? case_.lengthK(b) : case_.lengthQ(b)); ++i)
        for (int64_t h = 0; h < (keys ? case_.hk : case_.hq); ++h) {
          const int64_t start = keys ? case_.startK(b) : case_.startQ(b), rows = keys ? case_.sk : case_.sq;
          const int64_t entry = case_.ragged() ? 0 : b * v.strides.b;
          body(case_.ragged() ? start + i : b * rows + i, h,
               v.offset + entry + (start + i) * v.strides.s + h * v.strides.h, b, i);
        }
  }

  const Case case_;
  flashplus_forward_args args_ = FLASHPLUS_FORWARD_ARGS_INIT;
  reference::Problem reference_;
  View q_, k_, v_, o_, lse_;
  View rows_k_, rows_v_; ///< What the reference reads: k_ and v_, or of a cache the same keys as rows.
  DeviceBuffer tiles_;

private:
  void makeInputs();
  void makeCache();
  View pool(const Layout &layout, int64_t num_pages, int64_t dim) const;
  void makeOutputs();
  void makeLengths();
  void makeScore();
  void makeDropout();
  void makeSinks();
  DLTensor *vector(const void *data, DLDataType type, std::vector<int64_t> shape, bool guarded = false);
  template <class Body> void forValidRows(Body body) const;

  std::deque<View> small_; ///< Lengths, slopes and auxiliary tensors.
  std::vector<int32_t> cu_q_, cu_k_, indptr_, entries_, used_;
  std::deque<std::vector<float>> floats_;
  std::vector<flashplus_score_tensor> score_tensors_;
  std::vector<flashplus_score_scalar> score_scalars_;
  float scale_ = 0;
  View rng_state_, sinks_;
};

} // namespace flashplus::conformance
