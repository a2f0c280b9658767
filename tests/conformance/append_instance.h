// SPDX-License-Identifier: BSD-3-Clause
// An AppendCase with memory: its tensors, what the cache and q must be afterwards to the bit, and the
// attention to those. Slots that hold no key are NaN, and entries of tables behind the last that is needed
// are garbage.
#pragma once

#include "reference/compare.h"
#include "tests/conformance/append_problem.h"
#include "tests/conformance/session.h"

#include <deque>
#include <memory>

namespace flashplus::conformance {

/// (blocks, rows, heads, dim) of a storage type, or a table.
struct AppendTensor {
  std::vector<std::byte> host;
  DeviceBuffer device;
  std::vector<int64_t> shape, strides;
  int64_t offset = 0; ///< Elements before the first.
  DLTensor tensor = {};

  int64_t at(int64_t block, int64_t row, int64_t head) const;
};

class AppendInstance {
public:
  explicit AppendInstance(const AppendCase &c);
  AppendInstance(const AppendInstance &) = delete;

  const AppendCase &problem() const { return case_; }
  const flashplus_forward_args &args() const { return args_; }
  /// The cache as it was, and poison into o.
  void reset();
  /// What lies in o's memory.
  std::vector<std::byte> readO() const { return o_.device.read(); }
  /// Holds the cache and o against what they must be, and the inputs against what they were.
  void judge() const;

private:
  void makeCache();
  void makeTables();
  void makeNew();
  void makeRotary();
  void makeQ();
  void expectCache();
  void expectQ();
  reference::Comparison compare() const;
  AppendTensor rows(int64_t blocks, int64_t rows, int64_t heads, int64_t dim, int64_t gap, bool heads_first);
  DLTensor *finish(AppendTensor &t, DLDataType type, bool packed = false);
  DLTensor *table(const void *data, DLDataType type, std::vector<int64_t> shape);
  void random(AppendTensor &t, char name, int64_t block, int64_t row);
  /// Page and slot of slot `slot` of sequence b; page -1 where there is none.
  std::pair<int64_t, int64_t> place(int64_t b, int64_t slot) const;
  bool isDropped(int64_t b, int64_t i) const;
  int64_t lengthAfter(int64_t b) const; ///< Keys, leftpad included.
  int64_t position(int64_t b) const;
  /// A row as fp32, turned to `position` and rounded.
  std::vector<float> turned(const std::vector<std::byte> &from, int64_t at, int64_t position) const;

  const AppendCase case_;
  flashplus_forward_args args_ = FLASHPLUS_FORWARD_ARGS_INIT;
  AppendTensor k_, v_, k_new_, v_new_, q_, o_, cos_, sin_;
  std::deque<AppendTensor> tables_;
  std::vector<std::vector<int32_t>> pages_; ///< Of every sequence; -1: none.
  int64_t num_pages_ = 0;
  std::vector<std::byte> expected_k_, expected_v_, expected_q_;
};

/// Each of `cases`, or where Session::pairsOnly() those that have to be run, once per storage type: by plan
/// and by flashplus_forward, with equal bits; then judged.
void checkAppend(const std::vector<AppendCase> &cases);

} // namespace flashplus::conformance
