// SPDX-License-Identifier: BSD-3-Clause
// Tensors of a call with any sizes, strides, dtypes and devices, mostly good ones, out of a fuzzer's bytes.
#pragma once

#include <dlpack/dlpack.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

namespace flashplus::fuzz {

/// Takes values off the input; zeros when it is used up.
class Input {
public:
  Input(const uint8_t *data, size_t size) : data_(data), size_(size) {}
  template <class T> T take() {
    T value{};
    const size_t n = std::min(sizeof value, size_);
    std::memcpy(&value, data_, n);
    data_ += n;
    size_ -= n;
    return value;
  }
  /// Mostly small, sometimes anything.
  int64_t length() {
    const auto kind = take<uint8_t>();
    return kind < 240 ? kind % 64 : kind < 250 ? take<int32_t>() : take<int64_t>();
  }
  std::string rest() { return {reinterpret_cast<const char *>(data_), size_}; }

private:
  const uint8_t *data_;
  size_t size_;
};

struct Tensor {
  DLTensor dl{};
  int64_t shape[4] = {}, strides[4] = {};

  DLTensor *read(Input &in, int rank, std::initializer_list<int64_t> dims, DLDataType type, DLDevice device) {
    const auto flags = in.take<uint8_t>();
    std::copy(dims.begin(), dims.end(), shape);
    dl = {nullptr, device, rank, type, shape, nullptr, 0};
    int64_t stride = 1;
    for (int i = rank; i-- > 0;) {
      strides[i] = stride;
      if (__builtin_mul_overflow(stride, shape[i], &stride))
        stride = 1;
    }
    if (flags & 1)
      dl.strides = strides;
    if (flags & 2)
      strides[in.take<uint8_t>() % 4] = in.length();
    if (flags & 4)
      shape[in.take<uint8_t>() % 4] = in.length();
    if (flags & 8)
      dl.ndim = in.take<int8_t>() % 6;
    if (flags & 16)
      dl.dtype = in.take<DLDataType>();
    if (flags & 32)
      dl.device = {DLDeviceType(in.take<uint8_t>() % 16), in.take<int8_t>()};
    return (flags & 192) == 192 ? nullptr : &dl;
  }
};

} // namespace flashplus::fuzz
