// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/tensor_view.h"

#include <algorithm>
#include <bit>

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

} // namespace

std::string dimsText(std::initializer_list<int64_t> dims) { return listText(dims); }

std::string TensorView::shapeText() const { return listText(std::span(shape, size_t(rank))); }

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
  int64_t elements = 1; // of the dimensions so far, as if none were empty: the next one's compact stride
  bool sized = true;
  empty = false;
  for (int i = rank; i-- > 0;) {
    const int64_t size = shape[i] = tensor->shape[i];
    strides[i] = tensor->strides ? tensor->strides[i] : elements;
    empty |= size == 0;
    sized = sized && size >= 0 && !__builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements) &&
            elements <= kMost;
  }
  if (!sized)
    return invalidArgument(std::string(name) + " has shape " + shapeText() +
                           (std::any_of(shape, shape + rank, [](int64_t size) { return size < 0; })
                                ? "; dimensions must not be negative"
                                : "; at most 2^48 elements are allowed"));
  int64_t extent = 0; // of the last element
  for (int i = 0; i < rank; ++i) {
    if (shape[i] <= 1)
      continue;
    if (strides[i] < 0 || strides[i] > kMost)
      return invalidArgument(std::string(name) + " has stride " + number(strides[i]) + " in dimension " +
                             number(i) + "; strides must be 0 to 2^48");
    int64_t reach = 0;
    if (!empty && (__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) || (extent += reach) > kMost))
      return invalidArgument(std::string(name) + " has shape " + shapeText() + " and strides " +
                             listText(std::span(strides, size_t(rank))) +
                             "; it must not reach beyond 2^48 elements");
  }
  data = nullptr;
  if (tensor->data)
    data = static_cast<char *>(tensor->data) + tensor->byte_offset;
  else if (wanted == DataPointers::Required && !empty)
    return invalidArgument(std::string(name) + " has null data; it must point to " + shapeText() +
                           " elements");
  const uintptr_t bytes = (uintptr_t(tensor->dtype.bits) * tensor->dtype.lanes + 7) / 8;
  const auto address = reinterpret_cast<uintptr_t>(data);
  if (bytes > 1 && (std::has_single_bit(bytes) ? address & (bytes - 1) : address % bytes))
    return invalidArgument(std::string(name) +
                           " has data at an address that is not a multiple of its element size, " +
                           number(int64_t(bytes)) + " bytes");
  return Status::ok();
}

Status TensorView::wrongShape(std::span<const int64_t> wanted, const char *meaning) const {
  return invalidArgument(std::string(name) + " has shape " + shapeText() + "; it must be " + meaning + " = " +
                         listText(wanted));
}

Status TensorView::wrongType(const char *wanted) const {
  return invalidArgument(std::string(name) + " has dtype " + dtypeText() + "; it must be " + wanted);
}

Status TensorView::wrongUnitStride() const {
  return invalidArgument(std::string(name) + " has stride " + number(strides[rank - 1]) +
                         " in its last dimension; it must be 1");
}

Status TensorView::wantDistinct() const {
  for (int i = 0; i < rank && !isEmpty(); ++i)
    if (shape[i] > 1 && strides[i] == 0)
      return invalidArgument(std::string(name) + " has stride 0 in dimension " + number(i) +
                             "; an output's must be at least 1");
  return Status::ok();
}

} // namespace flashplus
