// SPDX-License-Identifier: BSD-3-Clause
// One DLTensor argument, checked, with strides filled in. No allocation unless a check fails: every launch
// goes through here.
#pragma once

#include "spec/status.h"

#include <cstdint>
#include <dlpack/dlpack.h>
#include <initializer_list>
#include <span>
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
  bool empty = false;             ///< As isEmpty().

  /// Fills the view in. InvalidArgument names what is wrong with the tensor itself: null, rank, negative or
  /// huge sizes, strides below 0 or beyond 2^48, an extent that no address space holds, null or misaligned
  /// data.
  Status read(const char *argument, const DLTensor *tensor, DataPointers data);

  /// `meaning` names the dimensions, e.g. "(batch, heads_q, seqlen_q)".
  Status wantShape(std::span<const int64_t> wanted, const char *meaning) const {
    return hasShape(wanted) ? Status::ok() : wrongShape(wanted, meaning);
  }
  Status wantShape(std::initializer_list<int64_t> wanted, const char *meaning) const {
    return wantShape(std::span(wanted.begin(), wanted.size()), meaning);
  }
  bool hasShape(std::span<const int64_t> wanted) const {
    bool same = int(wanted.size()) == rank;
    for (int i = 0; same && i < rank; ++i)
      same = wanted[size_t(i)] == shape[i];
    return same;
  }
  bool hasShape(std::initializer_list<int64_t> wanted) const {
    return hasShape(std::span(wanted.begin(), wanted.size()));
  }
  Status wantType(DLDataTypeCode code, int bits, const char *wanted) const {
    return hasType(code, bits) ? Status::ok() : wrongType(wanted);
  }
  bool hasType(DLDataTypeCode code, int bits) const {
    const DLDataType &t = source->dtype;
    return t.code == code && t.bits == bits && t.lanes == 1;
  }
  Status wantUnitStride() const {
    return empty || shape[rank - 1] <= 1 || strides[rank - 1] == 1 ? Status::ok() : wrongUnitStride();
  }
  /// For outputs: no two elements share memory through a stride of 0.
  Status wantDistinct() const;

  bool isEmpty() const { return empty; } ///< It has no element; then its strides mean nothing.

  std::string shapeText() const;
  std::string dtypeText() const;

private: // what the checks say when they fail
  Status wrongShape(std::span<const int64_t> wanted, const char *meaning) const;
  Status wrongType(const char *wanted) const;
  Status wrongUnitStride() const;
};

std::string dimsText(std::initializer_list<int64_t> dims);

} // namespace flashplus
