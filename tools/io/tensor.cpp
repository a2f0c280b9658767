// SPDX-License-Identifier: BSD-3-Clause
#include "tools/io/tensor.h"

#include <new>
#include <stdexcept>

namespace flashplus::io {

size_t elementBytes(ElementType type) {
  switch (type) {
  case ElementType::F16:
  case ElementType::BF16:
    return 2;
  case ElementType::F32:
  case ElementType::I32:
    return 4;
  case ElementType::F64:
  case ElementType::I64:
    return 8;
  }
  return 0;
}

std::string_view elementName(ElementType type) {
  switch (type) {
  case ElementType::F16:
    return "fp16";
  case ElementType::BF16:
    return "bf16";
  case ElementType::F32:
    return "fp32";
  case ElementType::F64:
    return "fp64";
  case ElementType::I32:
    return "int32";
  case ElementType::I64:
    return "int64";
  }
  return "unknown";
}

int64_t Tensor::elements() const {
  int64_t n = 1;
  for (int64_t d : shape)
    n *= d;
  return n;
}

std::string shapeText(const std::vector<int64_t> &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::optional<int64_t> tensorBytes(const std::vector<int64_t> &shape, size_t element_bytes) {
  int64_t n = static_cast<int64_t>(element_bytes);
  bool zero = false;
  // A zero dimension must not hide an overflow of the others: element counts are computed from parts of
  // shapes.
  for (int64_t d : shape) {
    if (d < 0)
      return std::nullopt;
    zero |= d == 0;
    if (__builtin_mul_overflow(n, d == 0 ? 1 : d, &n))
      return std::nullopt;
  }
  return zero ? 0 : n;
}

Result<Tensor> makeTensor(ElementType type, std::vector<int64_t> shape) {
  auto bytes = tensorBytes(shape, elementBytes(type));
  if (!bytes)
    return invalidArgument("shape " + shapeText(shape) + " has a negative dimension or more than 2^63 bytes");
  Tensor tensor{type, std::move(shape), {}};
  try {
    tensor.data.resize(static_cast<size_t>(*bytes));
  } catch (const std::exception &) { // bad_alloc, length_error
    return Status(StatusCode::OutOfMemory, "no memory for a tensor of shape " + shapeText(tensor.shape) +
                                               ", " + std::to_string(*bytes) + " bytes");
  }
  return tensor;
}

} // namespace flashplus::io
