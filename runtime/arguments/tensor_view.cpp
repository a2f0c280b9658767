// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/tensor_view.h"

#include <algorithm>

namespace flashplus {
namespace {

constexpr int64_t kMost = int64_t(1) << 48; ///< Elements; more than any address space holds.

std::string number(int64_t v) { return std::to_string(v); }

template <class Range> std::string listText(const Range &values) {
  std::string text = "(";
  bool first = true;
  for (int64_t v : values) {
    text += (first ? "" : ", ") + number(v);
    first = false;
  }
  return text + ")";
}

struct Span {
  const int64_t *values;
  int count;
  const int64_t *begin() const { return values; }
  const int64_t *end() const { return values + count; }
};

} // namespace

std::string dimsText(std::initializer_list<int64_t> dims) { return listText(dims); }

std::string TensorView::shapeText() const { return listText(Span{shape, rank}); }

std::string TensorView::dtypeText() const {
  const DLDataType &t = source->dtype;
  const char *kind = t.code == kDLFloat    ? "float"
                     : t.code == kDLBfloat ? "bfloat"
                     : t.code == kDLInt    ? "int"
                     : t.code == kDLUInt   ? "uint"
                                           : "code";
  return kind + std::to_string(t.bits) + (t.lanes == 1 ? "" : "x" + std::to_string(t.lanes));
}

Status TensorView::read(const char *argument, const DLTensor *tensor, DataPointers wanted) {
  name = argument;
  source = tensor;
  if (!tensor)
    return invalidArgument(std::string(name) + " is null; it must be a tensor");
  if (tensor->ndim < 1 || tensor->ndim > kMaxRank || !tensor->shape)
    return invalidArgument(std::string(name) + " has rank " + number(tensor->ndim) +
                           (tensor->shape ? "" : " and no shape") + "; it must have 1 to 4 dimensions");
  rank = tensor->ndim;
  std::copy_n(tensor->shape, rank, shape);
  int64_t elements = 1;
  bool has_elements = true;
  for (int i = 0; i < rank; ++i) {
    if (shape[i] < 0)
      return invalidArgument(std::string(name) + " has shape " + shapeText() + "; dimensions must not be negative");
    has_elements = has_elements && shape[i] > 0;
    if (__builtin_mul_overflow(elements, std::max<int64_t>(shape[i], 1), &elements) || elements > kMost)
      return invalidArgument(std::string(name) + " has shape " + shapeText() + "; at most 2^48 elements are allowed");
  }
  if (tensor->strides) {
    std::copy_n(tensor->strides, rank, strides);
  } else {
    int64_t stride = 1;
    for (int i = rank; i-- > 0; stride *= std::max<int64_t>(shape[i], 1))
      strides[i] = stride;
  }
  int64_t extent = 0; // of the last element
  for (int i = 0; i < rank; ++i) {
    if (shape[i] <= 1)
      continue;
    if (strides[i] < 0 || strides[i] > kMost)
      return invalidArgument(std::string(name) + " has stride " + number(strides[i]) + " in dimension " + number(i) +
                             "; strides must be 0 to 2^48");
    int64_t reach = 0;
    if (has_elements && (__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) || (extent += reach) > kMost))
      return invalidArgument(std::string(name) + " has shape " + shapeText() + " and strides " +
                             listText(Span{strides, rank}) + "; it must not reach beyond 2^48 elements");
  }
  data = nullptr;
  if (tensor->data)
    data = static_cast<char *>(tensor->data) + tensor->byte_offset;
  else if (wanted == DataPointers::Required && has_elements)
    return invalidArgument(std::string(name) + " has null data; it must point to " + shapeText() + " elements");
  const uintptr_t bytes = (uintptr_t(tensor->dtype.bits) * tensor->dtype.lanes + 7) / 8;
  if (bytes > 1 && reinterpret_cast<uintptr_t>(data) % bytes)
    return invalidArgument(std::string(name) + " has data at an address that is not a multiple of its element size, " +
                           number(int64_t(bytes)) + " bytes");
  return Status::ok();
}

bool TensorView::hasShape(std::initializer_list<int64_t> wanted) const {
  return int(wanted.size()) == rank && std::equal(wanted.begin(), wanted.end(), shape);
}

Status TensorView::wantShape(std::initializer_list<int64_t> wanted, const char *meaning) const {
  if (hasShape(wanted))
    return Status::ok();
  return invalidArgument(std::string(name) + " has shape " + shapeText() + "; it must be " + meaning + " = " +
                         dimsText(wanted));
}

bool TensorView::hasType(DLDataTypeCode code, int bits) const {
  const DLDataType &t = source->dtype;
  return t.code == code && t.bits == bits && t.lanes == 1;
}

Status TensorView::wantType(DLDataTypeCode code, int bits, const char *wanted) const {
  if (hasType(code, bits))
    return Status::ok();
  return invalidArgument(std::string(name) + " has dtype " + dtypeText() + "; it must be " + wanted);
}

Status TensorView::wantUnitStride() const {
  if (shape[rank - 1] <= 1 || strides[rank - 1] == 1)
    return Status::ok();
  return invalidArgument(std::string(name) + " has stride " + number(strides[rank - 1]) +
                         " in its last dimension; it must be 1");
}

bool TensorView::isEmpty() const {
  for (int i = 0; i < rank; ++i)
    if (shape[i] == 0)
      return true;
  return false;
}

Status TensorView::wantDistinct() const {
  for (int i = 0; i < rank && !isEmpty(); ++i)
    if (shape[i] > 1 && strides[i] == 0)
      return invalidArgument(std::string(name) + " has stride 0 in dimension " + number(i) +
                             "; an output's must be at least 1");
  return Status::ok();
}

} // namespace flashplus
