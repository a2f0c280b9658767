// SPDX-License-Identifier: BSD-3-Clause
/**
 * The values that flashplus.hpp speaks with: what can fail (Error, Expected), and a tensor (DType, Tensor).
 * Include flashplus.hpp.
 */
#ifndef FLASHPLUS_VALUES_HPP
#define FLASHPLUS_VALUES_HPP

#include "flashplus.h"

#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#if defined(__cpp_exceptions)
#include <stdexcept>
#endif

namespace flashplus {
inline namespace api { // names of its own for the linker, apart from the library's internals

/// Why a call failed.
struct Error {
  flashplus_status code = FLASHPLUS_INTERNAL;
  std::string message; ///< One sentence that names the argument, its value and what is allowed.
};

#if defined(__cpp_exceptions)
class Exception : public std::runtime_error {
public:
  explicit Exception(Error error) : std::runtime_error(error.message), code_(error.code) {}
  flashplus_status code() const noexcept { return code_; }

private:
  flashplus_status code_;
};
#endif

/// A T or an Error. `*` and `->` are for an Expected that was tested.
template <class T> class [[nodiscard]] Expected {
public:
  Expected(T value) : value_(std::move(value)) {}
  Expected(Error error) : error_(std::move(error)) {}

  explicit operator bool() const noexcept { return value_.has_value(); }
  T &operator*() & { return *value_; }
  const T &operator*() const & { return *value_; }
  T &&operator*() && { return std::move(*value_); }
  T *operator->() { return &*value_; }
  const T *operator->() const { return &*value_; }
  const Error &error() const { return error_; }
#if defined(__cpp_exceptions)
  T &value() & { return check(), *value_; }
  const T &value() const & { return check(), *value_; }
  T &&value() && { return check(), std::move(*value_); }
#endif

private:
#if defined(__cpp_exceptions)
  void check() const {
    if (!value_)
      throw Exception(error_);
  }
#endif
  std::optional<T> value_;
  Error error_;
};

template <> class [[nodiscard]] Expected<void> {
public:
  Expected() = default;
  Expected(Error error) : good_(false), error_(std::move(error)) {}

  explicit operator bool() const noexcept { return good_; }
  const Error &error() const { return error_; }
#if defined(__cpp_exceptions)
  void value() const {
    if (!good_)
      throw Exception(error_);
  }
#endif

private:
  bool good_ = true;
  Error error_;
};

inline DLDevice cpu() { return {kDLCPU, 0}; }
inline DLDevice cuda(int ordinal) { return {kDLCUDA, ordinal}; }

enum class DType { F16, BF16, F32, I32, I64 };

/// A DLTensor by value: up to four dimensions, which it holds itself, over memory that it does not own. A
/// default-constructed one is the "null" of flashplus.h.
class Tensor {
public:
  Tensor() = default;
  /// Compact and row-major, or with `strides` in elements: as many as dimensions, else the library refuses
  /// the tensor.
  Tensor(const void *data, DType dtype, std::initializer_list<int64_t> shape, DLDevice device = cpu(),
         std::initializer_list<int64_t> strides = {})
      : Tensor(data, dtype, shape.begin(), shape.size(), device,
               strides.size() == shape.size() ? strides.begin() : nullptr) {
    if (strides.size() && strides.size() != shape.size())
      tensor_.ndim = -1;
  }
  /// More than four dimensions are kept as a count only; the library then refuses the tensor with a sentence.
  Tensor(const void *data, DType dtype, const int64_t *shape, size_t rank, DLDevice device = cpu(),
         const int64_t *strides = nullptr)
      : has_strides_(strides && rank <= 4) {
    for (size_t i = 0; i < rank && i < 4; ++i) {
      dims_[i] = shape[i];
      if (has_strides_)
        dims_[4 + i] = strides[i];
    }
    tensor_.data = const_cast<void *>(data);
    tensor_.device = device;
    tensor_.ndim = int32_t(rank);
    tensor_.dtype = dlType(dtype);
    point();
  }
  /// A view of the caller's DLTensor with its own copy of the dimensions.
  explicit Tensor(const DLTensor &t) : has_strides_(t.strides && t.ndim <= 4) {
    for (int i = 0; i < t.ndim && i < 4; ++i) {
      dims_[i] = t.shape[i];
      if (has_strides_)
        dims_[4 + i] = t.strides[i];
    }
    tensor_ = t;
    point();
  }
  Tensor(const Tensor &other) { *this = other; }
  Tensor &operator=(const Tensor &other) {
    std::memcpy(dims_, other.dims_, sizeof dims_);
    tensor_ = other.tensor_;
    has_strides_ = other.has_strides_;
    point();
    return *this;
  }

  bool isNull() const { return tensor_.ndim == 0; }
  /// Null for a null tensor. Valid as long as this object stays where it is.
  DLTensor *dl() { return isNull() ? nullptr : &tensor_; }
  const DLTensor *dl() const { return isNull() ? nullptr : &tensor_; }
  void *data() const { return tensor_.data; }
  void setData(void *data) { tensor_.data = data; }
  int rank() const { return tensor_.ndim; }
  int64_t size(int dimension) const { return dims_[dimension]; }
  /// Another length in one dimension; the strides stay those of the whole.
  Tensor narrowed(int dimension, int64_t length) const {
    Tensor t = *this;
    if (!t.has_strides_ && rank() <= 4) {
      int64_t stride = 1;
      for (int i = rank(); i-- > 0; stride *= dims_[i] > 1 ? dims_[i] : 1)
        t.dims_[4 + i] = stride;
      t.has_strides_ = true;
      t.point();
    }
    t.dims_[dimension] = length;
    return t;
  }

private:
  static DLDataType dlType(DType dtype) {
    switch (dtype) {
    case DType::F16:
      return {kDLFloat, 16, 1};
    case DType::BF16:
      return {kDLBfloat, 16, 1};
    case DType::F32:
      return {kDLFloat, 32, 1};
    case DType::I32:
      return {kDLInt, 32, 1};
    case DType::I64:
      break;
    }
    return {kDLInt, 64, 1};
  }
  void point() {
    tensor_.shape = dims_;
    tensor_.strides = has_strides_ ? dims_ + 4 : nullptr;
  }

  DLTensor tensor_{};
  int64_t dims_[8] = {}; ///< shape, strides
  bool has_strides_ = false;
};

} // namespace api
} // namespace flashplus
#endif // FLASHPLUS_VALUES_HPP
