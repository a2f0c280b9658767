// SPDX-License-Identifier: BSD-3-Clause
// One DLTensor argument, checked, with strides filled in. No allocation unless a check fails: every launch goes through
// here.
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <dlpack/dlpack.h>
#include <initializer_list>
#include <string>

namespace flashplus {

inline constexpr int kMaxRank = 4;

/// Where tensor data must be: a run needs it, a plan or a spec does not.
enum class DataPointers { Required, Optional };

struct TensorView {
  const char *name = "";
  const DLTensor *source = nullptr;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {}; ///< In elements. Of a dimension with one element: whatever the caller gave.
  void *data = nullptr;           ///< byte_offset included.

  /// Fills the view in. InvalidArgument names what is wrong with the tensor itself: null, rank, negative or huge sizes,
  /// strides below 0 or beyond 2^48, an extent that no address space holds, null or misaligned data.
  Status read(const char *argument, const DLTensor *tensor, DataPointers data);

  /// `meaning` names the dimensions, e.g. "(batch, heads_q, seqlen_q)".
  Status wantShape(std::initializer_list<int64_t> wanted, const char *meaning) const;
  bool hasShape(std::initializer_list<int64_t> wanted) const;
  Status wantType(DLDataTypeCode code, int bits, const char *wanted) const;
  bool hasType(DLDataTypeCode code, int bits) const;
  Status wantUnitStride() const;
  /// For outputs: no two elements share memory through a stride of 0.
  Status wantDistinct() const;

  bool isEmpty() const; ///< It has no element; then its strides mean nothing.

  std::string shapeText() const;
  std::string dtypeText() const;
};

std::string dimsText(std::initializer_list<int64_t> dims);

} // namespace flashplus
